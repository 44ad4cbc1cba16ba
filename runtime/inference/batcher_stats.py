"""What a micro-batcher has done."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BatcherStats:
    """What a batcher has done so far.

    Attributes:
        submitted, answered, failed, cancelled: clips; those that are in none of the last three are pending.
        route_batches, routed: runs of the router, and the clips in them.
        expert_batches, run: runs of all experts together, and the clips in them.
        waited, longest_wait: seconds from the submission of a clip until its expert began; sum and maximum.
    """

    submitted: int = 0
    answered: int = 0
    failed: int = 0
    cancelled: int = 0
    route_batches: int = 0
    routed: int = 0
    expert_batches: int = 0
    run: int = 0
    waited: float = 0.0
    longest_wait: float = 0.0

    @property
    def pending(self) -> int:
        """Clips that wait or are being computed."""
        return self.submitted - self.answered - self.failed - self.cancelled

    @property
    def mean_batch(self) -> float:
        """Clips in an expert's run, on the mean; 0 before the first."""
        return self.run / max(1, self.expert_batches)

    @property
    def mean_wait(self) -> float:
        """Seconds from submission to the expert's beginning, on the mean."""
        return self.waited / max(1, self.run)
