"""The page: classify a clip and see which expert answered, then perturb the clip and see what changes.

`hardroute page`, or `python app.py` in a checkout. Bound to this machine by default, with limits on what may be
uploaded and no calls to the outside.
"""

from __future__ import annotations

if __name__ == "__main__":
    # The command loads this file once more, as `hardroute.app`: its help needs none of the libraries below, and one
    # that is missing is named.
    from hardroute.cli import main

    main("app")

import base64
import io
import json
import os
import re
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

# Read when the library is imported.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import cv2
import gradio as gr
import numpy as np
import torch
from PIL import Image

from hardroute.audit.attacks import SUITES, find_attack, nearest_inside
from hardroute.audit.bundles import load_twin
from hardroute.audit.defaults import EPS, STEPS
from hardroute.runtime.bundle import Trust
from hardroute.runtime.clips import DecodedClip, Limits, decode, to_network
from hardroute.runtime.datasets import open_set
from hardroute.runtime.errors import HardrouteError
from hardroute.runtime.inference import Engine, Prediction
from hardroute.runtime.routelog import RouteRecord

UPLOADS = Limits(max_bytes=32 * 2**20, max_seconds=300.0, max_decode_seconds=20.0)
AS_CLASSIFIED, WHEN = "as classified", ("before", "after")
NOTE = "Gradients come from the PyTorch twin; then the deployed engine judges the clip, rounded to 8 bits."
CSS = "img.clip {width: 100%; max-width: 288px; margin: auto; image-rendering: pixelated; border-radius: 6px}"


class Studio:
    """What the page can do, without the page: an engine for answers and its PyTorch twin for gradients."""

    def __init__(self, bundle: str | Path, samples: str, trust: Trust | None = None) -> None:
        self.engine = Engine.load(bundle, trust=trust)
        self.twin = load_twin(self.engine.bundle)
        self.samples = [(str(r.path), r.label) for r in open_set(samples).rows if r.label in self.engine.classes]

    def classify(self, video: str | None) -> tuple[Any, ...]:
        """Returns what the network sees (HTML), class probabilities, router weights, routing-log record."""
        if video is None:  # the visitor took the clip away
            return "", None, None, None
        frames = self._decode(video).frames
        # From the file once more, so that the log line tells what decoding costs.
        prediction = self.engine.predict(str(video), limits=UPLOADS)
        record = RouteRecord.from_prediction(prediction, self.engine.bundle.digest).to_json()
        return animation(frames), self._classes(prediction), experts(prediction), json.loads(record)

    def attack(self, video: str | None, label: str, name: str, eps: float, steps: float) -> tuple[Any, ...]:
        """Perturbs a clip within eps/255 on the twin, and lets the engine judge it before and after.

        Returns a sentence, three pictures (before, after, difference), classes and routers (before, after).
        """
        frames = self._decode(video).frames[None]
        before = self.engine.predict_batch(frames)[0]
        target = before.index if label == AS_CLASSIFIED else self.engine.classes.index(label)
        x = torch.from_numpy(to_network(frames))
        y = torch.tensor([target])
        x_adv = find_attack(name)(self.twin, x, y, eps=eps / 255, steps=int(steps), seed=0)
        attacked = nearest_inside(x, x_adv, eps / 255)
        after = self.engine.predict_batch(attacked)[0]
        change = (attacked[0].astype(np.float32) - frames[0]) / max(eps, 1)  # in [-1, 1]
        difference = (127.5 * (1 + change)).astype(np.uint8)
        return (
            verdict(before, after, self.engine.classes[target]),
            *map(contact_sheet, (frames[0], attacked[0], difference)),
            *map(self._classes, (before, after)),
            *map(experts, (before, after)),
        )

    def _decode(self, video: str | None) -> DecodedClip:
        if video is None:
            raise HardrouteError("no clip yet: upload a video or take a sample")
        return decode(video, self.engine.contract, UPLOADS)

    def _classes(self, prediction: Prediction) -> dict[str, float]:
        return dict(zip(self.engine.classes, map(float, prediction.probabilities), strict=True))


def experts(prediction: Prediction) -> dict[str, float]:
    return {f"expert {i}": float(weight) for i, weight in enumerate(prediction.route.weights)}


def verdict(before: Prediction, after: Prediction, truth: str) -> str:
    # "Fell" would flatter the attack where the clip was wrong from the start.
    held = "was wrong already" if before.label != truth else "held" if after.label == truth else "fell"
    a, b = before.route, after.route
    names = [as_text(name) for name in (before.label, after.label, truth)]
    labels = f"**Label** {names[0]} → {names[1]} (attacked as *{names[2]}*)"
    routes = f"**Route** expert {a.expert} → expert {b.expert}, margin {a.margin:.2f} → {b.margin:.2f}"
    return f"### The label {held}\n{labels} · {routes}"


def as_text(name: str) -> str:
    """A name that stands for itself in Markdown, whatever is in it: no emphasis, link, formula or HTML."""
    return re.sub(r"[!-/:-@\[-`{-~]", lambda found: f"&#{ord(found[0])};", name)


def contact_sheet(frames: np.ndarray, columns: int = 6, scale: int = 3) -> np.ndarray:
    """Lays frames (T, H, W, 3) uint8 out in rows, enlarged without smoothing so that single pixels show."""
    gap, more = (0, 1), -len(frames) % columns
    tiles = np.pad(frames, ((0, more), gap, gap, (0, 0)), constant_values=255)
    tiles[len(frames) :] = 255
    rows = [np.concatenate(list(row), axis=1) for row in tiles.reshape(-1, columns, *tiles.shape[1:])]
    return cv2.resize(np.concatenate(rows), None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST)


def animation(frames: np.ndarray, milliseconds: int = 120) -> str:
    """Returns HTML that plays frames (T, H, W, 3) uint8: browsers know few of the codecs that videos have."""
    first, *rest = [Image.fromarray(frame) for frame in frames]
    file = io.BytesIO()
    first.save(file, "WEBP", save_all=True, append_images=rest, duration=milliseconds, loop=0, lossless=True)
    data = base64.b64encode(file.getvalue()).decode()
    return f'<img class="clip" alt="the clip as the network sees it" src="data:image/webp;base64,{data}">'


def said_plainly(action: Callable[..., Any]) -> Callable[..., Any]:
    """Shows a user's mistake as its one line; anything else stays a bug in the server's log."""

    @wraps(action)
    def wrapped(*args: Any) -> Any:
        try:
            return action(*args)
        except HardrouteError as error:
            raise gr.Error(str(error), print_exception=False) from None

    return wrapped


def page(studio: Studio) -> gr.Blocks:
    manifest = studio.engine.bundle.manifest
    about = f"{len(manifest.classes)} classes · {len(manifest.experts)} experts, of which one runs per clip"
    # Uploads and pictures are removed after an hour: nothing of a visitor stays.
    with gr.Blocks(title="hardroute", analytics_enabled=False, delete_cache=(600, 3600)) as blocks:
        gr.Markdown(f"# hardroute\nBundle **{as_text(manifest.name)}** · {about}")
        with gr.Row():
            with gr.Column(scale=3, min_width=300):
                video = gr.File(label="Video, at most 32 MB", file_types=["video"], height=140)
                truth = gr.Dropdown([AS_CLASSIFIED, *manifest.classes], label="True label (for the attack)")
                if studio.samples:
                    rows, names = [list(row) for row in studio.samples], [row[1] for row in studio.samples]
                    gr.Examples(rows, [video, truth], label="Or a sample", example_labels=names)
                seen = gr.HTML()
            with gr.Column(scale=7), gr.Tabs():
                with gr.Tab("Classify"):
                    with gr.Row():
                        label, router = gr.Label(label="Class", num_top_classes=8), gr.Label(label="Router")
                    record = gr.JSON(label="Routing-log line", open=True, max_height=None)
                with gr.Tab("Attack"):
                    with gr.Row():
                        name = gr.Dropdown(list(SUITES["standard"]), value="pgd", label="Attack")
                        eps = gr.Slider(0, 16, value=round(EPS * 255), step=1, label="eps (of 255)")
                        steps = gr.Slider(1, 50, value=STEPS, step=1, label="Steps")
                    go = gr.Button("Attack this clip", variant="primary")
                    said = gr.Markdown(NOTE)
                    with gr.Row():
                        classes = [gr.Label(label=f"Class {when}", num_top_classes=4) for when in WHEN]
                    with gr.Row():
                        routers = [gr.Label(label=f"Router {when}", num_top_classes=4) for when in WHEN]
                    pictures = [picture("Before"), picture("After"), picture("Difference (grey: none)")]
        # One lane for all visitors: they would only share the same cores.
        lane: dict[str, Any] = {"concurrency_id": "model", "api_visibility": "private"}
        video.upload(lambda: AS_CLASSIFIED, None, truth, api_visibility="private")
        video.change(said_plainly(studio.classify), video, [seen, label, router, record], **lane)
        shown, asked = [said, *pictures, *classes, *routers], [video, truth, name, eps, steps]
        go.click(said_plainly(studio.attack), asked, shown, **lane)
    return blocks.queue(max_size=16, api_open=False)


def picture(title: str) -> gr.Image:
    gr.Markdown(title)  # a label of its own would lie on the first frame; and lossy pictures would hide the noise
    return gr.Image(label=title, show_label=False, format="png", buttons=["fullscreen"], interactive=False)


def launch(studio: Studio, host: str, port: int) -> Any:
    """Serves the page, without waiting: no share link, no telemetry, no remote fonts, limited uploads."""
    return page(studio).launch(
        server_name=host,
        server_port=port,
        share=False,
        max_file_size=UPLOADS.max_bytes,
        enable_monitoring=False,
        run_history=False,
        footer_links=[],
        allowed_paths=[path for path, _ in studio.samples],
        theme=gr.themes.Soft(font=("system-ui", "sans-serif"), font_mono=("ui-monospace", "monospace")),
        css=CSS,
        prevent_thread_lock=True,
        quiet=True,
    )


def serve(bundle: str | Path, samples: str, host: str, port: int, trust: Trust | None = None) -> None:
    """Shows a bundle, offers the clips of a labelled set, and says where, until it is interrupted."""
    studio = Studio(bundle, samples, trust)
    try:
        server, url, _ = launch(studio, host, port)
    except OSError as error:
        raise HardrouteError(f"cannot listen on {host}:{port}, choose another port: {error}") from None
    print(f"showing {bundle} on {url} (Ctrl-C ends it)", flush=True)
    print(f"the bundle is {studio.engine.bundle.standing}", flush=True)
    server.get_blocks().block_thread()
