"""How far an attack steps in each frame. A rule keeps its own memory over the iterations of one attack."""

from collections.abc import Callable

from torch import Tensor

from hardroute.audit.attacks.settings import Settings

# (gradient (N, C, T, H, W), eps) -> step, broadcastable to the gradient's shape, in pixels.
Rule = Callable[[Tensor, float], Tensor | float]


def constant(settings: Settings, steps: int) -> Rule:
    """The same step everywhere: `settings.step(steps)` times eps."""
    size = settings.step(steps)
    return lambda gradient, eps: size * eps


def shrinking(settings: Settings, steps: int) -> Rule:
    """Steps that fall geometrically from eps to eps / 50: across the box first, then between opposing conditions."""
    done = 0

    def rule(gradient: Tensor, eps: float) -> float:
        nonlocal done
        size = eps * 50 ** -(done / max(steps - 1, 1))
        done += 1
        return size

    return rule


def temporal(settings: Settings, steps: int) -> Rule:
    """Smaller steps in frames whose gradients have been large (eq. 5, 6).

    Norms are of each clip's own gradient (the loss is summed over clips), so they do not depend on the batch.
    """
    size = settings.step(steps)
    momentum: Tensor | None = None

    def rule(gradient: Tensor, eps: float) -> Tensor:
        nonlocal momentum
        norm = gradient.square().sum(dim=(1, 3, 4)).sqrt()
        momentum = norm if momentum is None else settings.beta * momentum + norm
        step = size * eps / (1 + (1 + momentum.sqrt()).log())
        return step[:, None, :, None, None]

    return rule
