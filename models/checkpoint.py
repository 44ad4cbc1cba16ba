"""Checkpoints without pickle: weights in safetensors, the architecture in JSON beside them."""

from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError
from safetensors.torch import load, save

from hardroute.models.build import build_model
from hardroute.models.moe import VideoMoE
from hardroute.models.spec import ModelSpec
from hardroute.runtime.errors import BundleError, MethodError
from hardroute.runtime.files import open_regular, parse_json, write_together

WEIGHTS, CONFIG = "twin.safetensors", "twin.json"
MAX_CONFIG_BYTES = 1 << 20
MAX_WEIGHTS_BYTES = 8 << 30
# Of each type that a network of ours is made of: as safetensors calls it.
_DTYPES = {torch.float32: "F32", torch.int64: "I64"}


class _Entry(BaseModel):
    """What a safetensors header says of a tensor."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


def save_twin(model: VideoMoE, spec: ModelSpec, folder: str | Path) -> None:
    """Writes twin.safetensors and twin.json; neither is ever half-written. Raises OSError."""
    # Clones: networks that share a part share its memory, which safetensors refuses.
    weights = save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()})
    write_together(folder, {WEIGHTS: weights, CONFIG: (spec.model_dump_json(indent=2) + "\n").encode()})


def load_twin(folder: str | Path) -> VideoMoE:
    """The PyTorch twin in a folder that `save_twin` has written to, in eval mode on the CPU.

    For a bundle take `hardroute.load_twin`, which reads what its digests were compared with.

    Raises:
        BundleError: a file is missing, unreadable, or its weights do not fit the architecture.

    Example:
        >>> model = load_twin("runs/motion/best")
    """
    folder = Path(folder)
    config, weights = _read(folder, CONFIG, MAX_CONFIG_BYTES), _read(folder, WEIGHTS, MAX_WEIGHTS_BYTES)
    return parse_twin(config, weights, str(folder))


def parse_twin(config: bytes, weights: bytes, where: str) -> VideoMoE:
    """The PyTorch twin in the bytes of its two files, in eval mode on the CPU.

    Nothing is built before the architecture's tensors are known to be those of the weights, so that no more memory is
    taken than a small multiple of their size.

    Args:
        config: of `twin.json`.
        weights: of `twin.safetensors`.
        where: what to call the place that they are from, in messages.

    Raises:
        BundleError: one of the two cannot be read, or they do not fit each other.
    """
    try:
        if len(config) > MAX_CONFIG_BYTES:
            raise ValueError(f"{CONFIG} is larger than the limit of {MAX_CONFIG_BYTES} bytes")
        parse_json(config)
        spec = ModelSpec.model_validate_json(config)
        header = _header(weights)
        if not _fits(spec, header):
            raise BundleError(f"{where}: {WEIGHTS} does not fit the architecture in {CONFIG}")
        model = build_model(spec)
        model.load_state_dict(load(weights))
    except BundleError:
        raise
    except (ValueError, SafetensorError, MethodError) as error:
        raise BundleError(f"{where}: the twin cannot be read: {str(error).splitlines()[0]}") from None
    except RuntimeError:
        raise BundleError(f"{where}: {WEIGHTS} does not fit the architecture in {CONFIG}") from None
    return model.eval()


def _fits(spec: ModelSpec, header: dict[str, _Entry]) -> bool:
    # Every block has tensors of its own. Without this, modules alone would cost memory: fifty blocks a stage.
    if sum(sum(expert.blocks) for expert in spec.experts) > len(header):
        return False
    with torch.device("meta"):  # shapes without memory
        wanted = build_model(spec).state_dict()
    return header.keys() == wanted.keys() and all(
        header[name].shape == tuple(tensor.shape) and header[name].dtype == _DTYPES.get(tensor.dtype)
        for name, tensor in wanted.items()
    )


def _header(weights: bytes) -> dict[str, _Entry]:
    """What safetensors say of their tensors: an eight-byte length, and so much JSON. Raises ValueError."""
    length = int.from_bytes(weights[:8], "little")
    if len(weights) < 8 or length > len(weights) - 8:
        raise ValueError(f"{WEIGHTS} is cut short")
    fields = parse_json(weights[8 : 8 + length])
    if not isinstance(fields, dict):
        raise ValueError(f"{WEIGHTS} has no header")
    return {name: _Entry.model_validate(entry) for name, entry in fields.items() if name != "__metadata__"}


def _read(folder: Path, name: str, limit: int) -> bytes:
    try:
        with open_regular(folder / name) as file:
            data = file.read(limit + 1)
    except FileNotFoundError:
        raise BundleError(f"{folder}: {name} is missing; export the run again") from None
    except OSError as error:
        raise BundleError(f"{folder}: the twin cannot be read: {error.strerror or error}") from None
    if len(data) > limit:
        raise BundleError(f"{folder}: {name} is larger than the limit of {limit} bytes")
    return data
