"""Training itself: one run from its settings to its best weights."""

from hardroute.training.loop.distributed import ProcessGroup
from hardroute.training.loop.fit import fit_run
from hardroute.training.loop.phases import single_expert, start_steps
from hardroute.training.loop.trainer import Reporter, Trainer

__all__ = ["ProcessGroup", "Reporter", "Trainer", "fit_run", "single_expert", "start_steps"]
