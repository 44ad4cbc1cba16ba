"""The audited model in bfloat16, for attacks to look at: weights are shared, verdicts stay with the model itself."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hardroute.models import VideoMoE
from hardroute.runtime.errors import BackendError

PRECISIONS = ("fp32", "bf16")


class Half(nn.Module):
    """A network computed in bfloat16 where autocast allows it; (N, C, T, H, W) -> logits in float32."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16):
            logits: Tensor = self.network(x)
        return logits.float()


def seen_by_attacks(model: VideoMoE, precision: str) -> VideoMoE:
    """The model itself for "fp32", the same weights in bfloat16 for "bf16"."""
    if precision == "fp32":
        return model
    return VideoMoE(Half(model.router), [Half(expert) for expert in model.experts]).train(model.training)


def require_precision(precision: str, device: str) -> None:
    """Raises BackendError for an unknown precision, and for bf16 on a device that has none."""
    if precision not in PRECISIONS:
        raise BackendError(f"attack precision {precision}: choose one of {', '.join(PRECISIONS)}")
    if precision == "bf16" and not has_bf16(device):
        raise BackendError(f"attack precision bf16: {device} has no bfloat16, and would be slower; take fp32")


def has_bf16(device: str) -> bool:
    """Whether "cpu", this processor, or a GPU computes in bfloat16."""
    if device != "cpu":
        return torch.cuda.is_bf16_supported()
    return any(there for name, there in torch.cpu.get_capabilities().items() if name.endswith("bf16"))
