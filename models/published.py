"""Published weights as a start: a state dict of another library goes into the expert that has its shapes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from hardroute.runtime.errors import DataError

CLASSIFIER = "fc."


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a state dict: safetensors, or a torch file read without running any code in it.

    Raises:
        DataError: not there, not readable, or it holds more than tensors by name.
    """
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        # weights_only admits tensors and plain containers; a pickle that would call anything else is refused.
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or 'damaged'}") from None
    except Exception:  # whatever else a hostile file makes a parser raise
        raise DataError(f"{path}: not a state dict; give a torchvision .pth file or a .safetensors file") from None
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise DataError(f"{path}: holds more than a state dict; save `model.state_dict()` alone")
    return dict(found)


def fits(expert: nn.Module, weights: Mapping[str, Tensor]) -> bool:
    """Whether every weight but the classifier's has a place of its shape, and every place a weight."""

    def shapes(tensors: Mapping[str, Tensor]) -> dict[str, torch.Size]:
        return {name: tensor.shape for name, tensor in tensors.items() if not name.startswith(CLASSIFIER)}

    return shapes(expert.state_dict()) == shapes(weights)


def start_from(experts: list[nn.Module], files: list[str]) -> None:
    """Fills every expert with the first of the files whose shapes it has; classifiers of another size stay fresh.

    torchvision's `r3d_18` and `r2plus1d_18` fit `r3d18` and `r2plus1d18` of width 64.

    Raises:
        DataError: a file cannot be read, or fits no expert; an expert has no file.
    """
    weights = {file: read_weights(file) for file in files}
    for file, tensors in weights.items():
        if not any(fits(expert, tensors) for expert in experts):
            raise DataError(f"{file}: fits none of the experts; it needs their kind, their blocks and --width 64")
    for index, expert in enumerate(experts):
        own = next((tensors for tensors in weights.values() if fits(expert, tensors)), None)
        if own is None:
            raise DataError(f"no --init file fits expert {index}; give one for each kind of expert")
        here = expert.state_dict()
        expert.load_state_dict({k: v if here[k].shape == v.shape else here[k] for k, v in own.items() if k in here})
