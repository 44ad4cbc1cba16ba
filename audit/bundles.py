"""The bundles of an audit, and the networks in them that are attacked: the audited one, and others whose adversarial
clips are shown to it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hardroute.runtime.bundle import Bundle, Twin
from hardroute.runtime.errors import BundleError, HardrouteError

if TYPE_CHECKING:
    from hardroute.models import VideoMoE


def require_twin(bundle: Bundle) -> Twin:
    """The files of its twin. Raises BundleError for a bundle that has nothing to attack."""
    if bundle.manifest.twin is None:
        raise BundleError(f"bundle {bundle.root}: it has no PyTorch twin to attack; export it with one")
    return bundle.manifest.twin


def open_sources(given: Sequence[str], audited: Bundle) -> dict[str, Bundle]:
    """Bundles by name, from NAME=BUNDLE each.

    Raises HardrouteError for a name that is none or there twice, BundleError for a bundle that is broken, has no twin,
    or does not see the same clips and name the same classes in the same order as the audited one.
    """
    sources: dict[str, Bundle] = {}
    for each in given:
        name, _, folder = each.partition("=")
        if not folder or not re.fullmatch(r"[\w.-]{1,40}", name, re.ASCII):
            raise HardrouteError(f"source '{each}': write NAME=BUNDLE, with letters, digits, '.', '_' or '-' in NAME")
        if name in sources:
            raise HardrouteError(f"source '{each}': there is another source of that name; choose one of its own")
        sources[name] = source = Bundle.open(folder)
        require_twin(source)
        for what in ("classes", "contract"):
            if getattr(source.manifest, what) != getattr(audited.manifest, what):
                raise BundleError(
                    f"bundle {folder}: its {what} are not those of {audited.root}, so no clip can be shown to both; "
                    "choose a source trained on the same set"
                )
    return sources


def load_twin(bundle: str | Path | Bundle) -> VideoMoE:
    """The PyTorch twin of a bundle, of its folder or of a shipped bundle by its name, in eval mode on the CPU.

    Its bytes are those that the bundle's digests were compared with, whatever lies at their paths by now.

    Raises:
        BundleError: there is no bundle, it is broken or has no twin; see `hardroute.models.parse_twin`.
    """
    from hardroute.models import parse_twin

    opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    twin = require_twin(opened)
    return parse_twin(opened.read(twin.config), opened.read(twin.weights), f"bundle {opened.root}")


def load_twins(bundles: Mapping[str, Bundle], device: str = "cpu") -> dict[str, VideoMoE]:
    """Twins by the names of their bundles, in eval mode on `device`.

    Raises BundleError, also for a twin of another number of experts than its bundle; BackendError.
    """
    # Here: they bring torch, which a bundle that is not there need not wait for.
    from hardroute.audit.execution.device import open_device

    where = open_device(device)
    models = {name: load_twin(bundle).to(where) for name, bundle in bundles.items()}
    for name, bundle in bundles.items():
        found, said = len(models[name].experts), len(bundle.manifest.experts)
        if found != said:
            raise BundleError(
                f"bundle {bundle.root}: its twin has {found} experts, its manifest {said}; export it again"
            )
    return models
