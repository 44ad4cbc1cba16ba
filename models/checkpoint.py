"""Checkpoints without pickle: weights in safetensors, the architecture in JSON beside them."""

from pathlib import Path

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from hardroute.models.build import build_model
from hardroute.models.moe import VideoMoE
from hardroute.models.spec import ModelSpec
from hardroute.runtime.errors import BundleError
from hardroute.runtime.files import write_together

WEIGHTS, CONFIG = "twin.safetensors", "twin.json"


def save_twin(model: VideoMoE, spec: ModelSpec, folder: str | Path) -> None:
    """Writes twin.safetensors and twin.json; neither is ever half-written. Raises OSError."""
    # Clones: networks that share a part share its memory, which safetensors refuses.
    weights = save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()})
    write_together(folder, {WEIGHTS: weights, CONFIG: (spec.model_dump_json(indent=2) + "\n").encode()})


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
