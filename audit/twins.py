"""The networks that an audit attacks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hardroute import models
from hardroute.audit.evaluation.router_scale import scaled
from hardroute.audit.execution.device import open_device
from hardroute.models import VideoMoE
from hardroute.runtime.bundle import Bundle, find_bundle
from hardroute.runtime.errors import BundleError


def load_twin(bundle: str | Path) -> VideoMoE:
    """`hardroute.models.load_twin` of a bundle's folder, or of a shipped bundle by its name. Raises BundleError."""
    return models.load_twin(find_bundle(bundle))


def load_twins(
    folders: Mapping[str, Path], device: str = "cpu", factors: Mapping[str, float] | None = None
) -> dict[str, VideoMoE]:
    """Twins by name in eval mode on `device`, the scores of each times its factor. Raises BundleError, BackendError."""
    where = open_device(device)
    models = {name: load_twin(folder).to(where) for name, folder in folders.items()}
    return scaled(models, factors) if factors else models


def require_shape(model: VideoMoE, bundle: Bundle) -> None:
    """Raises BundleError for a twin of another number of experts than its bundle."""
    found, said = len(model.experts), len(bundle.manifest.experts)
    if found != said:
        raise BundleError(f"bundle {bundle.root}: its twin has {found} experts, its manifest {said}; export it again")
