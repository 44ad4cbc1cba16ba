"""Arithmetic in half precision: bf16 or fp16 where torch's autocast allows it, weights in fp32 throughout."""

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Final

import torch
from torch import Tensor, nn

from hardroute.audit.execution import has_bf16, require_cuda
from hardroute.models import LayerError, VideoMoE, prove_gradients
from hardroute.runtime.errors import BackendError

log = logging.getLogger(__name__)
DTYPES: Final = {"bf16": torch.bfloat16, "fp16": torch.float16}
LARGEST_GRADIENT: Final = 5.0


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
        self._scaler = torch.amp.GradScaler(device, enabled=name == "fp16")

    def prove(self, model: VideoMoE, shape: tuple[int, ...], batch: int) -> list[LayerError]:
        """Keeps in fp32 the layers whose gradients are wrong in half precision, here and at these shapes.

        Args:
            shape: of a clip, (3, T, H, W). batch: clips that the model gets at once; an expert gets fewer, too.

        Returns:
            The layers that failed; none for fp32. They are logged.
        """
        if self.name not in DTYPES:
            return []
        sizes = {batch, max(2, batch // len(model.experts))}
        source = torch.Generator().manual_seed(0)
        batches = (torch.rand(size, *shape, generator=source).to(self.device) for size in sorted(sizes))
        found = prove_gradients(model, batches, DTYPES[self.name])
        failed = [layer for layer in found if layer.failed]
        for layer in failed:
            log.warning(
                "%s computes in fp32: in %s its %s is off by %.2g of its size", layer.layer, self.name, *layer.worst
            )
        log.info("%s: %d of %d layers are computed in fp32", self.name, len(failed), len(found))
        return failed

    def attack(self) -> AbstractContextManager[object]:
        """For the inner attack: in fp16 its gradients, which nothing scales, would round to zero."""
        return nullcontext() if self.name == "fp16" else self.loss()

    def loss(self) -> AbstractContextManager[object]:
        """For the outer loss."""
        return torch.autocast(self.device, DTYPES[self.name]) if self.name in DTYPES else nullcontext()

    def scaled(self, loss: Tensor) -> Tensor:
        """What gradients are taken of: in fp16 the loss times a scale, which `step` takes off again."""
        scaled: Tensor = self._scaler.scale(loss)
        return scaled

    def step(self, optimizer: torch.optim.Optimizer, model: nn.Module) -> bool:
        """Clips the gradients' norm and moves the weights; False, and nothing is moved, if the norm is not finite."""
        self._scaler.unscale_(optimizer)
        norm = nn.utils.clip_grad_norm_(model.parameters(), LARGEST_GRADIENT)
        finite = bool(norm.isfinite())
        if finite:
            self._scaler.step(optimizer)
        # In fp16 a gradient beyond its range is how the scale finds its size: it falls, and the next batch may do.
        self._scaler.update()
        return finite

    def state(self) -> dict[str, Tensor]:
        """What fp16 has to go on with: the scale and how long it has held. Empty otherwise."""
        return {name: torch.tensor(float(value)) for name, value in self._scaler.state_dict().items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """The inverse of `state`. Raises KeyError if something is missing in it."""
        mine = self._scaler.state_dict()
        if mine:
            self._scaler.load_state_dict({name: type(mine[name])(state[name].item()) for name in mine})
