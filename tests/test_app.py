"""What the page computes, without a browser, and how it is served."""

from __future__ import annotations

import functools
import html
import re
import signal
import socket
import string
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import httpx
import numpy as np
import pytest
from markdown_it import MarkdownIt

from hardroute import Engine, app
from hardroute.runtime.errors import HardrouteError, MethodError
from tests.support.bundles import make_bundle, random_frames
from tests.support.paths import ROOT

SAMPLES = "motion:train=0,val=0,test=1"


@pytest.fixture(scope="module")
def studio(tiny_bundle: Path) -> app.Studio:
    return app.Studio(tiny_bundle, SAMPLES)


@pytest.fixture(scope="module")
def clip(studio: app.Studio) -> str:
    return studio.samples[0][0]


def test_samples_cover_every_class(studio: app.Studio) -> None:
    assert sorted(label for _, label in studio.samples) == sorted(studio.engine.classes)


def test_classify_shows_what_the_engine_says(studio: app.Studio, clip: str, tiny_bundle: Path) -> None:
    picture, classes, router, record = studio.classify(clip)
    with Engine.load(tiny_bundle) as engine:
        expected = engine.predict(clip)
    assert picture.startswith('<img class="clip"')
    assert classes == pytest.approx(dict(zip(engine.classes, expected.probabilities, strict=True)), abs=1e-5)
    assert max(router, key=lambda name: router[name]) == f"expert {expected.route.expert}"
    assert sum(router.values()) == pytest.approx(1)
    assert record["clip"] == Path(clip).name
    assert record["expert"] == expected.route.expert
    assert record["bundle_sha256"] == studio.engine.bundle.digest


@pytest.mark.parametrize("name", ["fgsm", "pgd", "j-tlga"])
def test_an_attack_stays_within_eps_and_changes_what_is_shown(studio: app.Studio, clip: str, name: str) -> None:
    eps = 6
    said, before, after, difference, *labels = studio.attack(clip, app.AS_CLASSIFIED, name, eps, 3)
    change = after.astype(int) - before.astype(int)
    assert np.abs(change).max() == eps
    # Grey where nothing changed, darker or lighter where it did; between the frames all three are white.
    inside = before.shape[0] // 2 - 3
    shown = np.sign(difference.astype(int) - 127)
    assert np.array_equal(np.sign(change)[:inside, :inside], shown[:inside, :inside])
    assert re.search(r"\*\*Label\*\* .+ → .+\*\*Route\*\* expert \d → expert \d", said)
    for shares in labels:
        assert sum(shares.values()) == pytest.approx(1)


def test_no_budget_no_change(studio: app.Studio, clip: str) -> None:
    said, before, after, difference, class_before, class_after, router_before, router_after = studio.attack(
        clip, app.AS_CLASSIFIED, "pgd", 0, 2
    )
    assert "held" in said
    assert np.array_equal(before, after)
    assert set(np.unique(difference)) == {127, 255}
    assert (class_before, router_before) == (class_after, router_after)


def test_the_true_label_decides_what_is_attacked(studio: app.Studio, clip: str) -> None:
    _, classes, _, _ = studio.classify(clip)
    least = min(classes, key=lambda name: classes[name])
    assert f"attacked as *{app.as_text(least)}*" in studio.attack(clip, least, "fgsm", 4, 1)[0]


def test_mistakes_become_one_line(studio: app.Studio, clip: str, tmp_path: Path) -> None:
    text = tmp_path / "notes.mp4"
    text.write_text("not a video")
    for video in (str(text), str(tmp_path / "missing.mp4"), "http://127.0.0.1:9/x.mp4"):
        with pytest.raises(gr.Error) as caught:
            app.said_plainly(studio.classify)(video)
        assert len(caught.value.message.splitlines()) == 1
    with pytest.raises(HardrouteError, match="no clip yet"):
        studio.attack(None, app.AS_CLASSIFIED, "pgd", 8, 1)
    with pytest.raises(MethodError):
        studio.attack(clip, app.AS_CLASSIFIED, "no-such-attack", 8, 1)


@pytest.mark.parametrize(
    "name",
    ["**bold** _it_", "[link](https://a.example)", "<img src=x onerror=alert(1)>", "$$x^2$$", "# a\\b", "&amp;", "`c`"],
)
def test_names_are_text_and_not_markdown(name: str) -> None:
    escaped = app.as_text(name)
    # Nothing is left that means anything in Markdown or HTML, and whoever reads it sees the name.
    assert not set(re.sub(r"&#\d+;", "", escaped)) & set(string.punctuation)
    assert html.unescape(escaped) == name
    page = MarkdownIt("commonmark").enable("table").render(f"### The label held\n**Label** {escaped}")
    assert "<a" not in page and "<img" not in page and "<em" not in page and "<code" not in page
    assert html.escape(name, quote=False) in page.replace("&quot;", '"')


def test_the_page_writes_names_as_text(tmp_path: Path) -> None:
    name, label = "<b>tiny</b>", "![](https://a.example/x)"
    root = make_bundle(tmp_path / "bundle", name=name, classes=[label, "right"]).root
    studio = SimpleNamespace(engine=Engine.load(root, threads=1), samples=[], classify=print, attack=print)
    with studio.engine:
        said = str([one["props"] for one in app.page(studio).config["components"] if one["type"] == "markdown"])  # type: ignore[arg-type]
        assert app.as_text(name) in said and name not in said
        frames = random_frames(1, studio.engine.contract)
        (answer,) = studio.engine.predict_batch(frames)
    told = app.verdict(replace(answer, label=label), replace(answer, label=label), label)
    assert told.count(app.as_text(label)) == 3 and label not in told


def test_without_a_clip_the_page_is_empty(studio: app.Studio) -> None:
    assert not any(studio.classify(None))


def test_bugs_are_not_dressed_up_as_mistakes() -> None:
    def broken() -> None:
        raise KeyError("bug")

    with pytest.raises(KeyError):
        app.said_plainly(broken)()


def test_contact_sheet_keeps_every_frame_in_order() -> None:
    frames = np.arange(7, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 4, 3), np.uint8)
    sheet = app.contact_sheet(frames, columns=3, scale=1)
    assert sheet.shape == (9, 15, 3)  # three rows and columns of a frame and one white pixel
    assert sheet[::3, ::5, 0].tolist() == [[0, 1, 2], [3, 4, 5], [6, 255, 255]]
    assert (sheet[2::3] == 255).all()
    assert (sheet[:, 4::5] == 255).all()


@pytest.fixture(scope="module")
def address(studio: app.Studio) -> Iterator[str]:
    _, url, _ = app.launch(studio, "127.0.0.1", free_port())
    yield url
    gr.close_all(verbose=False)


def test_served_on_this_machine_only_and_without_an_open_api(address: str) -> None:
    assert address.startswith("http://127.0.0.1:")
    assert not {"/classify", "/attack"} & set(httpx.get(f"{address}gradio_api/info").json()["named_endpoints"])
    for name in ("classify", "attack"):
        # Open, it would skip the queue, and with it the limit on what runs at a time.
        assert httpx.post(f"{address}gradio_api/run/{name}", json={"data": [None]}).status_code == 404
    assert not httpx.get(f"{address}config").json()["analytics_enabled"]


def test_uploads_are_limited(address: str) -> None:
    too_large = httpx.post(f"{address}gradio_api/upload", files={"files": ("a.mp4", bytes(app.UPLOADS.max_bytes + 1))})
    assert too_large.status_code == 413
    assert httpx.post(f"{address}gradio_api/upload", files={"files": ("a.mp4", bytes(100))}).is_success


def test_other_files_of_this_machine_are_not_served(address: str) -> None:
    assert httpx.get(f"{address}gradio_api/file={ROOT / 'pyproject.toml'}").status_code in (403, 404)


@pytest.mark.parametrize("options", [["--bundle", "no-such-folder"], ["--samples", "no-such-set"]])
def test_a_mistake_on_the_command_line_is_one_line(options: list[str], tiny_bundle: Path) -> None:
    command = [sys.executable, "app.py", "--bundle", str(tiny_bundle), *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert re.fullmatch(r"error: .+\n", done.stderr)


def test_the_command_says_where_it_shows_what_and_ends_on_interrupt(tiny_bundle: Path) -> None:
    command = [sys.executable, "app.py", "--bundle", str(tiny_bundle), "--port", str(free_port())]
    # A shell that runs the tests in the background ignores interrupts, and the ignoring is inherited.
    interruptible = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, preexec_fn=interruptible) as process:
        try:
            assert process.stdout
            said = process.stdout.readline()
            shown = re.fullmatch(rf"showing {tiny_bundle} on (http://127.0.0.1:\d+/) \(Ctrl-C ends it\)\n", said)
            assert shown, said
            assert httpx.get(shown[1]).is_success
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=60) in (0, 130)
        finally:
            process.kill()


def test_a_taken_port_is_a_mistake(studio: app.Studio, tiny_bundle: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(HardrouteError, match=f"127.0.0.1:{port}"):
            app.serve(str(tiny_bundle), SAMPLES, "127.0.0.1", port)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
