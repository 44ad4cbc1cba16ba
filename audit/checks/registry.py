"""The checks of the gate, in the order in which verdict and report name them.

A new check is a module with its row, and its line here.
"""

from __future__ import annotations

from typing import Any, Final

from hardroute.audit.checks.accuracy import CLEAN, ROBUST
from hardroute.audit.checks.check import Check, Family
from hardroute.audit.checks.deployed import DEPLOYED
from hardroute.audit.checks.extremes import BITE, NOTHING
from hardroute.audit.checks.gradients import UNSATURATED, USABLE, USABLE_ROUTER
from hardroute.audit.checks.leads import GRADIENTS_LEAD, WHITE_BOX_LEADS, undefended_fall
from hardroute.audit.checks.router_load import ROUTER_LOAD
from hardroute.audit.checks.second_choice import WEAKEST_EXPERT
from hardroute.audit.checks.steadiness import INDEPENDENT, READY, REPEATABLE
from hardroute.audit.checks.strength import NOISE, STRONGER

CHECKS: Final[dict[str, Check[Any] | Family]] = {
    CLEAN.name: CLEAN,
    ROBUST.name: ROBUST,
    ROUTER_LOAD.name: ROUTER_LOAD,
    DEPLOYED.name: DEPLOYED,
    GRADIENTS_LEAD.name: GRADIENTS_LEAD,
    WHITE_BOX_LEADS.name: WHITE_BOX_LEADS,
    "undefended models fall": undefended_fall,
    USABLE.name: USABLE,
    USABLE_ROUTER.name: USABLE_ROUTER,
    UNSATURATED.name: UNSATURATED,
    BITE.name: BITE,
    NOTHING.name: NOTHING,
    STRONGER.name: STRONGER,
    NOISE.name: NOISE,
    WEAKEST_EXPERT.name: WEAKEST_EXPERT,
    REPEATABLE.name: REPEATABLE,
    INDEPENDENT.name: INDEPENDENT,
    READY.name: READY,
}
