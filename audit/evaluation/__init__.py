"""What holds and what falls, per clip: attacks run, a ledger kept, clips replayed in the runtime."""

from hardroute.audit.evaluation.cost import KINDS, counted
from hardroute.audit.evaluation.evaluation import Evaluation
from hardroute.audit.evaluation.evaluator import evaluate
from hardroute.audit.evaluation.statistics import Proportion, load_entropy, load_of
from hardroute.audit.evaluation.subject import Subject

__all__ = [
    "KINDS",
    "Evaluation",
    "Proportion",
    "Subject",
    "counted",
    "evaluate",
    "load_entropy",
    "load_of",
]
