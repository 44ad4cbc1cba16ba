"""Checkpoints without pickle: weights in safetensors, the architecture in JSON beside them."""

import os
from pathlib import Path

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from hardroute.models.build import ModelSpec, build_model
from hardroute.models.moe import VideoMoE
from hardroute.runtime.errors import BundleError

WEIGHTS, CONFIG = "twin.safetensors", "twin.json"


def save_twin(model: VideoMoE, spec: ModelSpec, folder: str | Path) -> None:
    """Write twin.safetensors and twin.json, each under a temporary name first, so that neither is ever half-written."""
    folder = Path(folder)
    weights = folder / (WEIGHTS + ".tmp")
    # Clones: networks that share a part share its memory, which safetensors refuses.
    save_file(
        {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}, weights
    )
    weights.chmod(0o644)  # save_file's 0600 would keep a service's own user from reading it
    config = folder / (CONFIG + ".tmp")
    config.write_text(spec.model_dump_json(indent=2) + "\n", encoding="utf-8")
    os.replace(weights, folder / WEIGHTS)
    os.replace(config, folder / CONFIG)


def load_twin(folder: str | Path) -> VideoMoE:
    """The PyTorch twin in the folder of a bundle (or of a run), in eval mode on the CPU.

    Raises:
        BundleError: a file is missing, unreadable, or its weights do not fit the architecture.

    Example:
        >>> model = load_twin("models/zoo/motion")
    """
    folder = Path(folder)
    try:
        spec = ModelSpec.model_validate_json((folder / CONFIG).read_bytes())
        model = build_model(spec)
        model.load_state_dict(load_file(folder / WEIGHTS))
    except FileNotFoundError as error:
        raise BundleError(
            f"{folder}: {Path(error.filename or WEIGHTS).name} is missing; export the run again"
        ) from None
    except (OSError, ValidationError, SafetensorError) as error:
        raise BundleError(f"{folder}: the twin cannot be read: {str(error).splitlines()[0]}") from None
    except RuntimeError:
        raise BundleError(f"{folder}: {WEIGHTS} does not fit the architecture in {CONFIG}") from None
    return model.eval()
