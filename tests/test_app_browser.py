"""The page in a real browser: an upload, a sample, a mistake and an attack, in headless Chromium.

HARDROUTE_SCREENSHOTS=DIR keeps a picture of each tab; HARDROUTE_BUNDLE=DIR shows that bundle, not a tiny one.
"""

from __future__ import annotations

import io
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import gradio as gr
import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect, sync_playwright

from hardroute import app
from hardroute.runtime.datasets import open_set

CHROMIUM = shutil.which("chromium")
# Without these, Chromium looks for its own servers at every start.
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PATIENCE = 60_000  # milliseconds; a bound for a hung page, not a measurement

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (apt-get install chromium)"),
]


@pytest.fixture(scope="module")
def studio(tiny_bundle: Path) -> app.Studio:
    bundle = Path(os.environ.get("HARDROUTE_BUNDLE", tiny_bundle))
    return app.Studio(bundle, "motion:train=0,val=0,test=1")


@pytest.fixture(scope="module")
def page(studio: app.Studio) -> Iterator[Page]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    _, url, _ = app.launch(studio, "127.0.0.1", port)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(PATIENCE)
        asked: set[str | None] = set()
        page.on("request", lambda request: asked.add(urlsplit(request.url).hostname))
        page.goto(url)
        yield page
        browser.close()
    gr.close_all(verbose=False)
    # A page that shows people's videos has no business elsewhere: no fonts, no scripts, no statistics.
    assert asked <= {"127.0.0.1", None, ""}


@pytest.fixture(autouse=True)
def _fresh(page: Page) -> None:
    page.reload()


def test_a_sample_is_classified(page: Page, studio: app.Studio) -> None:
    path, label = studio.samples[-1]
    page.get_by_role("button", name=label, exact=True).click()
    prediction = studio.engine.predict(path)
    expect(block(page, "Class")).to_contain_text(prediction.label, timeout=PATIENCE)
    expect(block(page, "Router")).to_contain_text(f"expert {prediction.route.expert}")
    expect(block(page, "Routing-log line")).to_contain_text(prediction.clip_sha256)
    expect(page.get_by_label("True label")).to_have_value(label)
    assert (
        page.locator("img.clip").evaluate("image => image.decode().then(() => image.naturalWidth)")
        == studio.engine.contract.width
    )
    keep(page, "app-classify")


def test_an_uploaded_video_is_classified(page: Page, studio: app.Studio) -> None:
    # Not one of the samples, so that only the upload can have brought it.
    path = open_set("motion:seed=1,train=0,val=0,test=1").rows[0].path
    page.get_by_role("button", name=studio.samples[0][1], exact=True).click()
    expect(block(page, "Routing-log line")).to_contain_text("clip_sha256", timeout=PATIENCE)
    page.get_by_role("button", name="Clear").first.click()
    expect(page.locator("img.clip")).to_have_count(0)
    page.locator("input[type=file]").first.set_input_files(path)
    expect(block(page, "Routing-log line")).to_contain_text(studio.engine.predict(path).clip_sha256, timeout=PATIENCE)
    # The sample's label is not the upload's.
    expect(page.get_by_label("True label")).to_have_value(app.AS_CLASSIFIED)


def test_a_file_that_is_no_video_gets_one_line(page: Page, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"not a video")
    page.locator("input[type=file]").first.set_input_files(broken)
    message = page.get_by_test_id("toast-body")
    expect(message).to_contain_text("broken.mp4", timeout=PATIENCE)
    assert "Traceback" not in message.inner_text()


def test_an_attack_shows_before_and_after(page: Page, studio: app.Studio) -> None:
    page.get_by_role("button", name=studio.samples[0][1], exact=True).click()
    expect(block(page, "Routing-log line")).to_contain_text("bundle_sha256", timeout=PATIENCE)
    page.get_by_role("tab", name="Attack").click()
    page.get_by_role("button", name="Attack this clip").click()
    expect(page.get_by_text("attacked as")).to_be_visible(timeout=PATIENCE)
    pictures = page.get_by_role("tabpanel").locator("img[src*='/file=']")
    expect(pictures).to_have_count(3)
    for picture in pictures.all():
        assert (
            picture.evaluate("image => image.decode().then(() => image.naturalWidth)")
            == 6 * (studio.engine.contract.width + 1) * 3
        )
    for title in ("Class before", "Class after", "Router before", "Router after"):
        expect(block(page, title)).to_contain_text("%")
    keep(page, "app-attack")


def test_an_attack_without_a_clip_says_what_is_missing(page: Page) -> None:
    page.get_by_role("tab", name="Attack").click()
    page.get_by_role("button", name="Attack this clip").click()
    expect(page.get_by_test_id("toast-body")).to_contain_text("no clip yet", timeout=PATIENCE)


def block(page: Page, label: str) -> Locator:
    return page.locator(".block", has=page.get_by_text(label, exact=True)).last


def keep(page: Page, name: str) -> None:
    if folder := os.environ.get("HARDROUTE_SCREENSHOTS"):
        picture = Image.open(io.BytesIO(page.screenshot(full_page=True)))
        # A palette keeps pictures of noise small enough for the documentation.
        picture.convert("RGB").quantize(96).save(Path(folder) / f"{name}.png", optimize=True)
