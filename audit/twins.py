"""The networks that an audit attacks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hardroute import models
from hardroute.audit.bundles import require_twin
from hardroute.audit.evaluation.router_scale import scaled
from hardroute.audit.execution.device import open_device
from hardroute.models import VideoMoE
from hardroute.runtime.bundle import Bundle
from hardroute.runtime.errors import BundleError


def load_twin(bundle: str | Path | Bundle) -> VideoMoE:
    """The PyTorch twin of a bundle, of its folder or of a shipped bundle by its name, in eval mode on the CPU.

    Its bytes are those that the bundle's digests were compared with, whatever lies at their paths by now.

    Raises:
        BundleError: there is no bundle, it is broken or has no twin; see `hardroute.models.parse_twin`.
    """
    opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    twin = require_twin(opened)
    return models.parse_twin(opened.read(twin.config), opened.read(twin.weights), f"bundle {opened.root}")


def load_twins(
    bundles: Mapping[str, Bundle], device: str = "cpu", factors: Mapping[str, float] | None = None
) -> dict[str, VideoMoE]:
    """Twins by name in eval mode on `device`, the scores of each times its factor. Raises BundleError, BackendError."""
    where = open_device(device)
    models = {name: load_twin(bundle).to(where) for name, bundle in bundles.items()}
    return scaled(models, factors) if factors else models


def require_shape(model: VideoMoE, bundle: Bundle) -> None:
    """Raises BundleError for a twin of another number of experts than its bundle."""
    found, said = len(model.experts), len(bundle.manifest.experts)
    if found != said:
        raise BundleError(f"bundle {bundle.root}: its twin has {found} experts, its manifest {said}; export it again")
