"""What holds and what falls, per clip: attacks run, books kept, clips replayed in the runtime."""

from hardroute.audit.evaluation.cost import KINDS, counted
from hardroute.audit.evaluation.evaluator import Evaluation, evaluate
from hardroute.audit.evaluation.router_scale import factor_for, spread
from hardroute.audit.evaluation.statistics import Proportion, load_entropy, load_of

__all__ = [
    "KINDS",
    "Evaluation",
    "Proportion",
    "counted",
    "evaluate",
    "factor_for",
    "load_entropy",
    "load_of",
    "spread",
]
