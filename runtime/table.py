"""What `python -m runtime` shows a person."""

from __future__ import annotations

from collections.abc import Sequence

from runtime.bundle import Bundle
from runtime.errors import BundleError
from runtime.prediction import Prediction

_NAME_WIDTH = 40


class PredictionTable:
    """Aligned lines that can be printed one by one as the answers come.

    Args:
        names: of the clips to come; with the classes they fix the widths of the columns.
        classes: the labels to come.
    """

    def __init__(self, names: Sequence[str], classes: Sequence[str]) -> None:
        self._name = min(max(len("clip"), *map(len, names)), _NAME_WIDTH)
        self._label = max(len("label"), *map(len, classes))
        self._begun = False

    def row(self, prediction: Prediction, abstained: bool = False) -> str:
        """One clip's line, without label if that is withheld; the first one comes with the header above it."""
        cells = (
            fit(prediction.clip, self._name),
            "-" if abstained else prediction.label,
            f"{prediction.probability:.3f}",
            str(prediction.route.expert),
            f"{prediction.route.margin:.3f}",
            *(
                f"{value:.1f}"
                for value in (
                    prediction.milliseconds.decode,
                    prediction.milliseconds.route,
                    prediction.milliseconds.expert,
                )
            ),
        )
        row = self._align(cells)
        if self._begun:
            return row
        self._begun = True
        header = ("clip", "label", "probability", "expert", "margin", "decode ms", "route ms", "expert ms")
        return f"{self._align(header)}\n{row}"

    def _align(self, cells: Sequence[str]) -> str:
        clip, label, *numbers = cells
        widths = (11, 6, 6, 9, 8, 9)
        aligned = [f"{clip:<{self._name}}", f"{label:<{self._label}}"]
        aligned += [f"{cell:>{width}}" for cell, width in zip(numbers, widths, strict=True)]
        return "  ".join(aligned)


def describe(bundle: Bundle) -> str:
    """What is in a bundle, one fact a line."""
    manifest = bundle.manifest
    contract = manifest.contract
    experts = ", ".join(f"{expert.kind} (width {expert.width})" for expert in manifest.experts)
    size = f"{contract.width}x{contract.height}"
    window = "the whole video" if contract.seconds is None else f"the first {contract.seconds:g} s"
    megabytes = sum(bundle.path(name).stat().st_size for name in manifest.files) / 1e6
    facts = {
        "name": manifest.name,
        "digest": bundle.digest,
        "classes": f"{len(manifest.classes)}: {', '.join(manifest.classes)}",
        "experts": f"{len(manifest.experts)}: {experts}",
        "clip": f"{contract.frames} frames of {size} from {window}, {contract.resize}",
        "precision": manifest.precision,
        "files": f"{len(manifest.files)}, {megabytes:.1f} MB, all digests match",
        "certificate": _certified(bundle),
        "made with": ", ".join(f"{tool} {version}" for tool, version in manifest.tools.items()) or "not stated",
    }
    return "\n".join(f"{fact:<11} {value}" for fact, value in facts.items())


def _certified(bundle: Bundle) -> str:
    try:
        found = bundle.certificate()
    except BundleError as error:
        # The bundle itself is whole, and this says all there is to know.
        return f"NOT VALID: {error}"
    return found.headline if found else "none; `python -m audit ... --attach` puts one in"


def fit(name: str, width: int) -> str:
    """A name as plain text of at most `width` characters."""
    # A file name may hold anything; on a terminal it must stay text on one line.
    name = "".join(character if character.isprintable() else "?" for character in name)
    return name if len(name) <= width else name[: width - 3] + "..."
