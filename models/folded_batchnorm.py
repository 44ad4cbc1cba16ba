"""A network as it is served: its batch norms folded into the convolutions before them, for searches that only look."""

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from hardroute.models.moe import VideoMoE


class Folded:
    """A copy of `model` in eval mode with a fifth to a third less to compute, kept at the model's present weights.

    A batch norm in eval mode is a scale and an offset for each channel, which its convolution can apply itself. The
    copy's outputs differ from the model's in eval mode by rounding only. Its weights take no gradients.

    Example:
        >>> folded = Folded(model)
        >>> x_adv = ATTACKS["pgd"](folded.refresh(), x, y)  # after each change of the model's weights
    """

    def __init__(self, model: VideoMoE) -> None:
        self.twin = copy.deepcopy(model).eval().requires_grad_(False)
        theirs, ours = list(_pairs(model)), list(_pairs(self.twin))
        for _, _, convolution, norm in ours:
            convolution.bias = nn.Parameter(torch.zeros_like(norm.weight), requires_grad=False)
        for sequence, name, _, _ in ours:
            setattr(sequence, name, nn.Identity())
        self._folds = [(mine, *pair[2:]) for (_, _, mine, _), pair in zip(ours, theirs, strict=True)]
        gone = {id(t) for _, _, conv, norm in theirs for t in (conv.weight, *norm.parameters(), *norm.buffers())}
        named = dict(self.twin.state_dict(keep_vars=True))
        tensors = model.state_dict(keep_vars=True)
        self._copied: list[tuple[Tensor, Tensor]] = [
            (named[name], tensor) for name, tensor in tensors.items() if id(tensor) not in gone
        ]

    @torch.no_grad()
    def refresh(self) -> VideoMoE:
        """The copy, with the weights and running statistics that the model has now."""
        for mine, theirs in self._copied:
            mine.copy_(theirs)
        for folded, convolution, norm in self._folds:
            assert folded.bias is not None  # noqa: S101
            assert norm.running_mean is not None  # noqa: S101
            assert norm.running_var is not None  # noqa: S101
            scale = (norm.running_var + norm.eps).rsqrt() * norm.weight
            torch.mul(convolution.weight, scale.view(-1, 1, 1, 1, 1), out=folded.weight)
            torch.sub(norm.bias, norm.running_mean * scale, out=folded.bias)
        return self.twin


def _pairs(network: nn.Module) -> Iterator[tuple[nn.Sequential, str, nn.Conv3d, nn.BatchNorm3d]]:
    """Every batch norm that follows a convolution without bias, as (sequence, its name there, convolution, itself).

    Any other batch norm stays where it is and is copied.
    """
    for module in network.modules():
        if not isinstance(module, nn.Sequential):
            continue
        before: nn.Module | None = None
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm3d) and isinstance(before, nn.Conv3d) and before.bias is None:
                yield module, name, before, child
            before = _last(child)


def _last(module: nn.Module) -> nn.Module | None:
    """What a module's output comes from: of a sequence the last part."""
    while isinstance(module, nn.Sequential):
        if not len(module):
            return None
        module = module[-1]
    return module
