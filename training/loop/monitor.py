"""What goes wrong in adversarial training of a mixture, said while it happens."""

from collections.abc import Callable
from typing import Any, NoReturn

import torch
from torch import Tensor

from hardroute.audit.evaluation import load_entropy
from hardroute.models import VideoMoE
from hardroute.runtime.errors import HardrouteError
from hardroute.training.run import Validation

MEMORY = 0.95  # per batch: the load is that of about the last twenty
COLLAPSED = 0.5  # load entropy, as a share of log M
PATIENCE = 20  # batches that fail, before a run does; fp16 may need 16 to find the scale of its gradients


class TrainingError(HardrouteError):
    """Training cannot go on; the run's folder keeps what it had."""


class Monitor:
    """Looks at a run through the router's answers, the losses and the epochs' validation.

    Args:
        model: the model in training; only its passes in training mode count.
        say: takes a warning, one line.
        best: robust validation accuracy reached so far.
    """

    def __init__(self, model: VideoMoE, say: Callable[[str], None], best: float = 0.0) -> None:
        self.say = say
        self.load: Tensor | None = None
        self.skipped = 0  # batches of the epoch
        self._batches = self._in_a_row = 0
        self._where, self._said = "", set[str]()
        self._best = best
        if len(model.experts) > 1:
            model.router.register_forward_hook(self._see)

    def begin(self, epoch: int) -> None:
        """Each kind of warning is given once in an epoch."""
        self._where, self._said = f"epoch {epoch}", set[str]()
        self.skipped = self._batches = 0

    def batch(self, moved: bool) -> None:
        """Takes note of a batch; `moved`: its loss and gradients were finite, and so it moved the weights.

        Raises TrainingError when so many have failed that the run is going nowhere.
        """
        if self.load is not None and load_entropy(self.load.cpu().numpy()) < COLLAPSED:
            shares = " ".join(f"{share:.2f}" for share in self.load.tolist())
            self._once("collapse", f"the router is collapsing (load {shares} over the last batches); raise balance")
        self._batches += 1
        self._in_a_row = 0 if moved else self._in_a_row + 1
        if moved:
            return
        self.skipped += 1
        self._once("skipped", "a loss or a gradient is not finite, its batch is skipped; lower lr")
        if self._in_a_row >= PATIENCE:
            self._stop(f"the last {self._in_a_row} batches")

    def end(self) -> None:
        """After the batches of an epoch. Raises TrainingError as `batch` does."""
        if self.skipped >= PATIENCE and self.skipped > self._batches / 2:
            self._stop(f"{self.skipped} of {self._batches} batches")

    def epoch(self, found: Validation) -> None:
        """Looks at an epoch's validation."""
        if found.load_entropy < COLLAPSED:
            self._once(
                "collapse", f"the router is collapsing (load entropy {found.load_entropy:.2f} of 1); raise balance"
            )
        if self._best - found.robust > 0.1 and found.robust < self._best / 2:
            self._once(
                "overfitting",
                f"robust accuracy fell from {self._best:.3f} to {found.robust:.3f}: catastrophic overfitting to the "
                "inner attack; raise inner-steps or lower lr",
            )
        self._best = max(self._best, found.robust)

    def _stop(self, batches: str) -> NoReturn:
        raise TrainingError(
            f"{self._where}: {batches} had a loss or a gradient that is not finite; the run's folder keeps the last "
            "epoch that was finished; start another run with a lower lr, or in fp32"
        )

    def _see(self, router: Any, inputs: Any, output: Tensor) -> None:
        if not router.training:
            return
        share = torch.bincount(output.detach().argmax(1), minlength=output.shape[1]) / len(output)
        self.load = share if self.load is None else MEMORY * self.load + (1 - MEMORY) * share

    def _once(self, kind: str, text: str) -> None:
        if kind not in self._said:
            self._said.add(kind)
            self.say(f"{self._where}: {text}")
