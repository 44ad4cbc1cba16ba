"""Attacks: objective x step rule x gradient path. All of them by name in `registry`."""

from hardroute.audit.attacks.attack import Attack
from hardroute.audit.attacks.loop import frozen
from hardroute.audit.attacks.objectives import EXPERT, LAM, MOE, ROUTER, Objective, Target, ce, clean_route, label, lip
from hardroute.audit.attacks.quantize import nearest_inside
from hardroute.audit.attacks.reference import Head, Reference
from hardroute.audit.attacks.registry import ATTACKS, SUITES, find_attack
from hardroute.audit.attacks.settings import Settings
from hardroute.audit.attacks.steps import constant, temporal
from hardroute.audit.attacks.validation import answers, validate_clips, validate_labels, validate_model

__all__ = [
    "ATTACKS",
    "EXPERT",
    "LAM",
    "MOE",
    "ROUTER",
    "SUITES",
    "Attack",
    "Head",
    "Objective",
    "Reference",
    "Settings",
    "Target",
    "answers",
    "ce",
    "clean_route",
    "constant",
    "find_attack",
    "frozen",
    "label",
    "lip",
    "nearest_inside",
    "temporal",
    "validate_clips",
    "validate_labels",
    "validate_model",
]
