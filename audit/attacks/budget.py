"""What an attack may return. Nothing it hands over is believed before it passes here."""

from torch import Tensor

TOLERANCE = 1e-6  # float32 rounding of x + delta; anything beyond it is a broken attack


class BudgetError(RuntimeError):
    """An attack returned something outside its eps-box or [0, 1], or not finite: a bug in the attack."""


def verify(name: str, x: Tensor, x_adv: Tensor, eps: float) -> None:
    """Raises BudgetError unless x_adv is finite, shaped like x, in [0, 1] and within eps of x everywhere."""
    where = f"attack '{name}' at eps {eps * 255:g}/255"
    if x_adv.shape != x.shape or x_adv.dtype != x.dtype:
        raise BudgetError(f"{where} returned {x_adv.dtype} {tuple(x_adv.shape)} for {x.dtype} {tuple(x.shape)}")
    if not bool(x_adv.isfinite().all()):
        raise BudgetError(f"{where} returned NaN or infinity")
    if bool((x_adv < 0).any()) or bool((x_adv > 1).any()):
        raise BudgetError(f"{where} left [0, 1]: {float(x_adv.min()):.6g} to {float(x_adv.max()):.6g}")
    farthest = float((x_adv - x).abs().max())
    if farthest > eps + TOLERANCE:
        raise BudgetError(f"{where} went {farthest * 255:.6g}/255 away from the clip")
