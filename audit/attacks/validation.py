"""What attacks, evaluations and proofs take. Said once, so that all of them refuse the same with the same words."""

import torch
from torch import Tensor, nn

from hardroute.models import Outputs
from hardroute.runtime.errors import MethodError


def validate_clips(x: Tensor, y: Tensor | None = None, eps: float | None = None) -> None:
    """Raises MethodError, in one line, for what no attack, evaluation or proof can be right about.

    Args:
        x: clips, to be (N, C, T, H, W) float32 in [0, 1], N at least 1. y: labels, to be (N,) whole numbers from 0;
            whether they are classes is seen where a model answers (`validate_labels`).
        eps: L-infinity radius, to be in raw pixels of [0, 1].
    """
    if x.dim() != 5:
        raise MethodError(f"clips must have shape (N, C, T, H, W), not {tuple(x.shape)}")
    if x.dtype != torch.float32:
        raise MethodError(
            f"clips must be float32, not {str(x.dtype).removeprefix('torch.')}: convert them by x.float()"
        )
    if not x.numel():
        raise MethodError(f"there must be at least one clip, and pixels in it; the shape is {tuple(x.shape)}")
    low, high = (float(end) for end in x.detach().aminmax())
    if not (low >= 0 and high <= 1):  # NaN is in no order
        raise MethodError(
            f"clips must lie in [0, 1], not {low:.4g} to {high:.4g}: scale them; normalisation belongs to the model"
        )
    if y is not None:
        if y.shape != x.shape[:1]:
            raise MethodError(f"labels must have shape ({len(x)},), one per clip, not {tuple(y.shape)}")
        if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
            raise MethodError(f"labels must be whole numbers, not {_name(y.dtype)}")
        if bool((y < 0).any()):
            raise MethodError(f"labels are classes from 0; clip {int((y < 0).int().argmax())} has {int(y.min())}")
    if eps is not None and not 0 <= eps <= 1:
        raise MethodError(f"eps is in raw pixels of [0, 1], such as 8/255; got {eps}")


def validate_labels(y: Tensor, classes: int) -> None:
    """Raises MethodError for labels (N,) that a model of so many classes cannot be right about."""
    if int(y.max()) >= classes:
        wrong = int((y >= classes).int().argmax())
        raise MethodError(f"labels must be classes 0 to {classes - 1} of the model; clip {wrong} has {int(y[wrong])}")


def validate_model(model: nn.Module) -> None:
    """Raises MethodError for a model that torch gives no gradient of: its weights were made in inference mode."""
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_inference():
            raise MethodError(
                f"the model's {name} was made under torch.inference_mode, which takes its gradients for good: build or "
                "load the model outside of it"
            )


def answers(outputs: Outputs) -> Tensor:
    """(N,) class as deployed; -1, which is never right, where the router's scores or the class logits are not finite.

    The runtime gives no answer there either. Among equal scores or logits the first counts, as in the runtime.
    """
    logits = outputs.deployed
    finite = logits.isfinite().all(1) & outputs.router.isfinite().all(1)
    return logits.argmax(1).where(finite, -1)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
