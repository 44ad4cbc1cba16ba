"""The adversarial clips of an audit as a file, for whoever wants to look at them or show them to another runtime."""

from __future__ import annotations

import io

import numpy as np

from hardroute.audit.evaluation.evaluation import Evaluation
from hardroute.runtime.datasets import ClipArrays

NAME = "adversarial.npz"


def archive(clips: ClipArrays, evaluation: Evaluation, eps: float) -> bytes:
    """The worst clips found at `eps`, as a compressed npz without pickle; N clips in the report's order.

    frames (N, T, H, W, 3) uint8 RGB, as `Engine.predict_batch` takes them; labels (N,) int64; files, classes and
    attacks: names, of the attacks on other models, too, where their clips were shown; by (N,) index into attacks of the
    one that made it, -1 where the clip is as it was; eps_255.

    >>> kept = np.load("report/adversarial.npz", allow_pickle=False)  # doctest: +SKIP
    >>> engine.predict_batch(kept["frames"])  # doctest: +SKIP
    """
    out = io.BytesIO()
    np.savez_compressed(
        out,
        frames=evaluation.adversarial[eps],
        labels=evaluation.labels,
        by=evaluation.adversarial_by[eps],
        files=np.array(clips.files),
        classes=np.array(clips.classes),
        attacks=np.array(evaluation.makers),
        eps_255=np.float64(eps * 255),
    )
    return out.getvalue()
