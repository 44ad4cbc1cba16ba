"""`python -m runtime serve` as an operator sees it: a process, a port, a signal, an exit code."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from hardroute.cli import app
from hardroute.runtime.errors import HardrouteError
from tests.support.bundles import TinyBundle, make_bundle, write_video
from tests.support.paths import ROOT

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "passive", "NO_COLOR": "1", "COLUMNS": "200"}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyBundle:
    return make_bundle(tmp_path_factory.mktemp("serve") / "bundle")


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("videos") / "cat.mp4")


UNSIGNED = (
    "warning: the bundle is not certified: there is no certificate, and no trust was given; "
    "--trust asks for a signature\n"
)


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "hardroute", *map(str, arguments)]


@contextmanager
def serving(tiny: TinyBundle, folder: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str, int]]:
    """The process, and the address that it says it listens on."""
    words = command("serve", tiny.root, "--port", "0", "--log", folder / "routes.jsonl", "--threads", "1", *arguments)
    with subprocess.Popen(
        words, cwd=folder, env={**ENVIRONMENT, "TMPDIR": str(folder)}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        try:
            assert process.stdout
            found = re.search(r"http://([\d.]+):(\d+), unwatched", process.stdout.readline())
            assert found
            yield process, found[1], int(found[2])
        finally:
            process.kill()


def wait_until_closed(host: str, port: int) -> None:
    while True:
        try:
            socket.create_connection((host, port), timeout=60).close()
        except ConnectionRefusedError:
            return
        except ConnectionResetError:  # it came just as the port was closed
            continue


def test_sigterm_finishes_what_is_under_way_and_exits_0(tiny: TinyBundle, video: Path, tmp_path: Path) -> None:
    data = video.read_bytes()
    with serving(tiny, tmp_path) as (process, host, port):
        url = f"http://{host}:{port}"
        assert httpx.get(f"{url}/readyz").json()["ready"]
        assert httpx.post(f"{url}/v1/predict", files={"file": ("first.mp4", data)}).status_code == 200
        with socket.create_connection((host, port)) as slow:
            head = f"POST /v1/predict?name=last.mp4 HTTP/1.1\r\nHost: {host}\r\nContent-Type: video/mp4\r\n"
            slow.sendall(f"{head}Content-Length: {len(data)}\r\nExpect: 100-continue\r\n\r\n".encode())
            # The server asks for the body: from here on the request is under way.
            assert slow.recv(1000).startswith(b"HTTP/1.1 100")
            slow.sendall(data[:1000])
            process.send_signal(signal.SIGTERM)
            wait_until_closed(host, port)
            slow.sendall(data[1000:])
            answer = b"".join(iter(lambda: slow.recv(4096), b""))
        output, errors = process.communicate(timeout=60)
    assert answer.startswith(b"HTTP/1.1 200")
    assert (process.returncode, output, errors) == (0, "", UNSIGNED)
    lines = (tmp_path / "routes.jsonl").read_text().splitlines()
    assert [re.search(r'"clip": "(\w+)', line)[1] for line in lines] == ["first", "last"]  # type: ignore[index]
    verified = subprocess.run(
        command("log", "verify", tmp_path / "routes.jsonl"), env=ENVIRONMENT, capture_output=True, text=True
    )
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("hardroute-")] == [], "uploads are gone"


def test_an_upload_that_goes_on_after_its_refusal_is_cut_off(tiny: TinyBundle, tmp_path: Path) -> None:
    with (
        serving(tiny, tmp_path, "--max-upload", "1") as (_, host, port),
        socket.create_connection((host, port)) as client,
    ):
        client.settimeout(60)
        client.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\n")
        client.sendall(b"Transfer-Encoding: chunked\r\n\r\n")
        answer = client.recv(4096)
        assert answer.startswith(b"HTTP/1.1 415") and b"connection: close" in answer.lower()
        with pytest.raises(ConnectionError):
            client.sendall((b"10000\r\n" + bytes(65536) + b"\r\n") * 1000)


def test_its_temporary_files_may_be_tidied_up(tiny: TinyBundle, video: Path, tmp_path: Path) -> None:
    """As systemd-tmpfiles does with what nobody has touched for days."""
    with serving(tiny, tmp_path) as (_, host, port):
        for folder in tmp_path.glob("hardroute-*"):
            shutil.rmtree(folder)
        answer = httpx.post(f"http://{host}:{port}/v1/predict", files={"file": ("cat.mp4", video.read_bytes())})
    assert answer.status_code == 200, answer.text


def test_binding_elsewhere_without_a_token_is_warned_of(tiny: TinyBundle, tmp_path: Path) -> None:
    with serving(tiny, tmp_path, "--host", "0.0.0.0") as (process, _, port):  # noqa: S104
        assert httpx.get(f"http://127.0.0.1:{port}/v1/info").status_code == 200
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    said = errors.removeprefix(UNSIGNED)
    assert (process.returncode, len(said.splitlines()), said.startswith("warning: ")) == (0, 1, True), errors


@pytest.mark.parametrize(
    "arguments, says",
    [
        (("--host", "256.1.1.1"), "cannot listen"),
        (("--token-file", "nowhere"), "token file nowhere: cannot be read"),
        (("--token-file", "short"), "at least 16 characters"),
        (("--token-file", "words"), "one word"),
        (("--log", "no/such/folder/routes.jsonl"), "no such folder"),
        (("--log-max-bytes", "1000"), "name its file with --log"),
        (("--log", "routes.jsonl", "--log-max-bytes", "0"), "--log-max-bytes must be at least 1, got 0"),
        (("--backend", "abacus"), "abacus"),
        (("--digest", "0" * 64), "digest"),
        (("--stream", "door"), "expected NAME=SOURCE"),
        (("--no-watch", "--stream", "door=nowhere.mp4"), "nowhere.mp4"),
        (("--watch",), "no certificate"),
    ],
)
def test_mistakes_are_one_line(
    tiny: TinyBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("short").write_text("secret")
    Path("words").write_text("two words of which neither is one")
    result = CliRunner().invoke(app, ["serve", str(tiny.root), "--port", "0", *arguments])
    assert isinstance(result.exception, HardrouteError)
    assert says in str(result.exception) and "\n" not in str(result.exception)


def test_a_taken_port_exits_with_2(tiny: TinyBundle, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        words = command("serve", tiny.root, "--port", str(port))
        done = subprocess.run(words, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, f":{port}" in done.stderr, len(done.stderr.splitlines())) == (2, True, 1), done.stderr
