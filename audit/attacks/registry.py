"""Every attack by name, and the suites that an audit runs.

`ATTACKS["j-tlga"](model, x, y, eps=8/255, steps=10, seed=0)` gives adversarial clips. A new attack is a new row.
"""

from hardroute.audit.attacks.apgd import apgd
from hardroute.audit.attacks.attack import Attack
from hardroute.audit.attacks.blackbox import nes, noise
from hardroute.audit.attacks.conditions import all_of, mistaken, mistaken_for_rival, prefers
from hardroute.audit.attacks.fab import fab
from hardroute.audit.attacks.objectives import (
    EXPERT,
    GAMMA1,
    GAMMA2,
    LAM,
    MOE,
    ROUTER,
    ce,
    clean_route,
    dlr,
    lip,
    margin,
    rival_lead,
    target_route,
    weakest_route,
)
from hardroute.audit.attacks.settings import Settings
from hardroute.audit.attacks.square import square
from hardroute.audit.attacks.steps import shrinking, temporal
from hardroute.audit.attacks.translate import translate
from hardroute.runtime.errors import MethodError

# The losses of eq. 4, 8, 9 and 13.
L_MOE = ce(MOE) + LAM * lip(MOE)
L_ROUTER = ce(ROUTER, clean_route) + LAM * lip(ROUTER)
L_ROUTER_GUIDED = L_ROUTER - GAMMA1 * ce(ROUTER, weakest_route)
L_EXPERT = ce(EXPERT) + LAM * lip(EXPERT)
# Fooled by way of expert j: the router prefers j, and E_j is wrong (in the second: takes the clip for a given class).
VIA_EXPERT = all_of(prefers(ROUTER, target_route), mistaken(EXPERT))
VIA_EXPERT_AS_RIVAL = all_of(prefers(ROUTER, target_route), mistaken_for_rival(EXPERT))

ATTACKS: dict[str, Attack] = {
    "fgsm": Attack(ce(MOE), random_start=False, single_step=True, keep="last"),
    "pgd": Attack(ce(MOE)),
    "la": Attack(L_MOE),
    "t-pgd": Attack(ce(MOE), temporal),
    "tla-m": Attack(L_MOE, temporal),
    "pgd-r": Attack(ce(ROUTER, clean_route)),
    "tla-r": Attack(L_ROUTER, temporal),
    "tlga-r": Attack(L_ROUTER_GUIDED, temporal),
    "pgd-e": Attack(ce(EXPERT)),
    "tla-e": Attack(L_EXPERT, temporal),
    "j-tla": Attack(L_MOE + GAMMA2 * L_ROUTER, temporal),
    "j-tlga": Attack(L_MOE + GAMMA2 * L_ROUTER_GUIDED, temporal),
    "tt": Attack(ce(MOE), search=translate, random_start=False, budget=10, settings=Settings(rel_stepsize=0.1)),
    # Not in the paper: what hard routing hides from the rows above.
    "pgd-hard": Attack(ce(MOE), path="hard"),
    "pgd-margin": Attack(margin(MOE), path="hard"),
    "pgd-straight": Attack(ce(MOE), path="straight-through"),
    "pgd-soft": Attack(ce(MOE), path="soft"),
    "route-then-attack": Attack(VIA_EXPERT, shrinking, path="hard", every_expert=True),
    "route-then-attack-t": Attack(
        VIA_EXPERT_AS_RIVAL, shrinking, path="hard", random_start=False, every_expert=True, rivals=9
    ),
}

# Baselines without gradients.
ATTACKS |= {
    "noise": Attack(margin(MOE), search=noise, path="hard", random_start=False),
    "nes": Attack(
        margin(MOE), search=nes, path="hard", budget=2000, random_start=False, settings=Settings(rel_stepsize=0.1)
    ),
}
# AutoAttack in its standard setting: one restart each, 9 targets, on the logits as deployed.
ATTACKS |= {
    "apgd-ce": Attack(ce(MOE), search=apgd, path="hard", budget=100),
    "apgd-t": Attack(dlr(MOE), search=apgd, path="hard", budget=100, rivals=9),
    "fab-t": Attack(rival_lead(MOE), search=fab, path="hard", budget=100, rivals=9, random_start=False),
    "square": Attack(margin(MOE), search=square, path="hard", budget=5000, random_start=False),
}
ATTACKS["autoattack"] = ATTACKS["apgd-ce"].but(then=tuple(ATTACKS[name] for name in ("apgd-t", "fab-t", "square")))

# Cheapest first: a clip that has fallen need not meet the dearer ones. AutoAttack is in "full" by its parts.
SUITES: dict[str, tuple[str, ...]] = {
    "quick": ("fgsm", "pgd", "j-tlga"),
    # Rows of the paper's Tab. 1 and Fig. 5, for the report's tables.
    "paper": (
        *("fgsm", "pgd", "la", "t-pgd", "tla-m"),
        *("pgd-r", "tla-r", "tlga-r", "pgd-e", "tla-e", "j-tla", "j-tlga"),
    ),
    "standard": ("fgsm", "pgd-hard", "pgd-margin", "pgd", "j-tlga", "route-then-attack"),
    "full": (
        *(name for name in ATTACKS if ATTACKS[name].budget is None and not ATTACKS[name].every_expert),
        *("tt", "route-then-attack", "route-then-attack-t", "apgd-ce", "apgd-t", "fab-t", "nes", "square"),
    ),
}


def find_attack(name: str) -> Attack:
    """The row of that name. Raises MethodError, naming the known ones."""
    if name not in ATTACKS:
        raise MethodError(f"unknown attack '{name}': choose one of {', '.join(ATTACKS)}")
    return ATTACKS[name]
