"""The constants of the attacks, each a named setting."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """Constants shared by all attacks. Budgets are in raw pixels of [0, 1]; weights have no unit.

    Attributes:
        lam: weight of the Lipschitz term (eq. 4, 8). A large value weakens the attack, because the term can be
            raised by moving away from the decision boundary.
        gamma1: weight of the pull towards the weakest expert (eq. 9).
        gamma2: weight of the router's objective in a joint attack (eq. 10).
        beta: memory of the temporal momentum (eq. 5).
        rel_stepsize: step size as a share of eps, the alpha of eq. 6; None takes 2.5 / steps, so that the steps can
            cross the box. (`Attack` takes a step in raw pixels as well, as `alpha`, which is what other libraries
            call so.)
        softness: width of the soft minimum over several conditions, in units of the clean logits' spread.
        floor: smallest mean squared perturbation that the Lipschitz term divides by (eq. 3 is 0/0 at the clean clip).
    """

    lam: float = 1e-3
    gamma1: float = 1.0
    gamma2: float = 1.0
    beta: float = 0.9
    rel_stepsize: float | None = None
    softness: float = 0.1
    floor: float = 1e-8

    def step(self, steps: int) -> float:
        """Step size as a share of eps."""
        return 2.5 / steps if self.rel_stepsize is None else self.rel_stepsize
