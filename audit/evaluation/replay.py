"""Does the deployed runtime answer as the attacked twin? A strong twin must not vouch for weak files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hardroute.audit.defaults import BATCH_SIZE
from hardroute.audit.evaluation.evaluation import ByEps, Evaluation
from hardroute.audit.evaluation.statistics import Proportion
from hardroute.runtime.bundle import Baseline
from hardroute.runtime.inference import Engine, Prediction


@dataclass(frozen=True)
class Agreement:
    """Twin and deployed runtime on the same 8-bit clips, unattacked and perturbed.

    Attributes:
        clean: (N,) bool: same class and same expert on the unattacked clip.
        replayed: replayed[eps] (N,) bool: the same on the worst 8-bit adversarial clip.
        clean_right: (N,) bool: the runtime classifies the unattacked clip right.
        replayed_right: replayed_right[eps] (N,) bool: and the adversarial one.
        baseline: the runtime's answers to the unattacked clips, for `hardroute.runtime.watch` to compare traffic with.
    """

    clean: np.ndarray
    replayed: ByEps
    clean_right: np.ndarray
    replayed_right: ByEps
    baseline: Baseline

    def lowest(self) -> Proportion:
        """Share of clips that agree, in the worst of the sets that were replayed."""
        return min((Proportion.of(each) for each in (self.clean, *self.replayed.values())), key=lambda p: p.share)


def replay(
    engine: Engine,
    frames: np.ndarray,
    evaluation: Evaluation,
    batch_size: int = BATCH_SIZE,
    progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> Agreement:
    """Runs the audited clips (N, T, H, W, 3) uint8 and the adversarial ones through the deployed runtime.

    `progress`: called with (done, total, what), in clips.
    """
    done, total = 0, len(frames) * (1 + len(evaluation.eps))

    def answers(frames: np.ndarray) -> list[Prediction]:
        nonlocal done
        found: list[Prediction] = []
        for start in range(0, len(frames), batch_size):
            progress(done, total, "replay in the runtime")
            batch = engine.predict_batch(frames[start : start + batch_size])
            found += batch
            done += len(batch)
        return found

    clean = answers(frames)
    label, route = _labels(clean), _routes(clean)
    agree = (label == evaluation.clean_label) & (route == evaluation.clean_route)
    replayed, right = {}, {}
    for eps in evaluation.eps:
        attacked = answers(evaluation.adversarial[eps])
        eps_label = _labels(attacked)
        same_label = eps_label == evaluation.adversarial_label[eps]
        replayed[eps] = same_label & (_routes(attacked) == evaluation.adversarial_route[eps])
        right[eps] = eps_label == evaluation.labels
    progress(total, total, "replay done")
    return Agreement(agree, replayed, label == evaluation.labels, right, Baseline.of(clean))


def worst_case(evaluation: Evaluation, agreement: Agreement, eps: float) -> np.ndarray:
    """The headline (N,) bool: right in twin and runtime, unattacked and under all attacks up to eps."""
    held = evaluation.robust[eps] & agreement.clean_right
    for smaller in (e for e in evaluation.eps if e <= eps):
        held = held & agreement.replayed_right[smaller]
    return held


def _labels(found: list[Prediction]) -> np.ndarray:
    return np.array([prediction.index for prediction in found])


def _routes(found: list[Prediction]) -> np.ndarray:
    return np.array([prediction.route.expert for prediction in found])
