"""The bundles of an audit: the audited one, and others whose adversarial clips are shown to it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hardroute.runtime.bundle import Bundle, Twin
from hardroute.runtime.errors import BundleError, HardrouteError

AUDITED = "this model"  # never a source's name, which has no space


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
