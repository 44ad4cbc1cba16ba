"""Arithmetic in half precision: bf16 or fp16 where torch's autocast allows it, weights in fp32 throughout."""

from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy

import torch
from torch import Tensor, nn

from hardroute.audit.execution import has_bf16, require_cuda
from hardroute.models import VideoMoE
from hardroute.models.restoration import StripConv3d
from hardroute.runtime.clips import ClipContract
from hardroute.runtime.errors import BackendError

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
LARGEST_GRADIENT = 5.0


class Precision:
    """How one run computes: "fp32", "bf16" or "fp16".

    Raises:
        BackendError: there is no such device, or half precision was asked for and it cannot do it.
    """

    def __init__(self, name: str, device: str) -> None:
        if device == "cuda":
            require_cuda(device)
        if name == "fp16" and device != "cuda":
            raise BackendError("precision fp16 needs device cuda; on a CPU train in bf16 or fp32")
        if name == "bf16" and device == "cpu" and not has_bf16(device):
            raise BackendError("precision bf16: this processor has no bfloat16, and would be slower; take fp32")
        if name == "bf16" and device == "cuda" and not has_bf16(device):
            raise BackendError("precision bf16: this GPU has no bfloat16; take fp16 or fp32")
        self.name, self.device = name, device
        self._scaler = torch.amp.GradScaler("cuda", enabled=name == "fp16")

    def check_planes(self, model: VideoMoE, contract: ClipContract) -> None:
        """Raises BackendError if a 3D convolution of `model` has planes that no processor can train in bf16 yet.

        Torch does not say which processors have matrix tiles (models.restoration.StripConv3d), so this is for all.
        """
        if self.name != "bf16" or self.device != "cpu":
            return
        widths = [0]

        def look(conv: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
            if torch.is_autocast_enabled("cpu"):
                widths.append(output.shape[-1])

        clip = torch.zeros(1, *contract.shape, device="meta")  # shapes alone: nothing is computed
        for part in (model.router, *model.experts):
            part = deepcopy(part).to("meta").eval()
            for conv in part.modules():
                if isinstance(conv, nn.Conv3d) and not isinstance(conv, StripConv3d):
                    conv.register_forward_hook(look)
            with self.loss():
                part(clip)
        if max(widths) > StripConv3d.WIDEST:
            raise BackendError(
                f"precision bf16: a layer's planes would be {max(widths)} pixels wide, and a processor's bfloat16 "
                f"gradients are wrong beyond {StripConv3d.WIDEST}; choose a smaller size, or precision fp32"
            )

    def attack(self) -> AbstractContextManager[object]:
        """For the inner attack: in fp16 its gradients, which nothing scales, would round to zero."""
        return nullcontext() if self.name == "fp16" else self.loss()

    def loss(self) -> AbstractContextManager[object]:
        """For the outer loss."""
        return torch.autocast(self.device, DTYPES[self.name]) if self.name in DTYPES else nullcontext()

    def backward(self, loss: Tensor) -> None:
        self._scaler.scale(loss).backward()

    def step(self, optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
        """Clips the gradients' norm and moves the weights."""
        self._scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), LARGEST_GRADIENT)
        self._scaler.step(optimizer)
        self._scaler.update()
