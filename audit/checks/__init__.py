"""What the gate asks of a model, each as a check: measured, judged, and said in a sentence."""

from hardroute.audit.checks.check import Check, Judgement, Outcome, Verdict, at_least, at_most
from hardroute.audit.checks.context import Context
from hardroute.audit.checks.gate import Measurements, decide, measure
from hardroute.audit.checks.registry import CHECKS

__all__ = [
    "CHECKS",
    "Check",
    "Context",
    "Judgement",
    "Measurements",
    "Outcome",
    "Verdict",
    "at_least",
    "at_most",
    "decide",
    "measure",
]
