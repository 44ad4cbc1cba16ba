"""What `hardroute info` and `hardroute predict` show a person."""

from __future__ import annotations

from collections.abc import Sequence

from hardroute.runtime.bundle import Bundle
from hardroute.runtime.errors import BundleError
from hardroute.runtime.files import printable
from hardroute.runtime.inference import Prediction, VideoPrediction

_NAME_WIDTH = 40
_WINDOW = "  {:.1f} to {:.1f} s"


class PredictionTable:
    """Aligned lines that can be printed one by one as the answers come.

    Args:
        names: of the clips to come; with the classes they fix the widths of the columns.
        classes: the labels to come.
        windows: whether rows for the clips of a video will come.
    """

    def __init__(self, names: Sequence[str], classes: Sequence[str], windows: bool = False) -> None:
        shortest = _WINDOW.format(1000, 1000) if windows else "clip"
        self._name = min(max(len(shortest), *map(len, names)), _NAME_WIDTH)
        self._label = max(len("label"), *map(len, classes))
        self._begun = False

    def row(self, prediction: Prediction, abstained: bool = False) -> str:
        """One clip's line, without label if that is withheld; the first one comes with the header above it."""
        return self._headed(self._clip(prediction.clip, prediction, abstained))

    def video(self, video: VideoPrediction) -> str:
        """A video's line, with the milliseconds of all its clips, and below it a line for each clip."""
        first, *_ = video.clips
        answered = (fit(first.clip, self._name), video.label, f"{video.probability:.3f}", "-", "-")
        stages = zip(*(_stages(clip) for clip in video.clips), strict=True)
        lines = [self._align((*answered, *(f"{sum(stage):.1f}" for stage in stages)))]
        for clip, window in zip(video.clips, video.windows, strict=True):
            lines.append(self._clip(_WINDOW.format(*window), clip))
        return self._headed("\n".join(lines))

    def _clip(self, name: str, prediction: Prediction, abstained: bool = False) -> str:
        return self._align(
            (
                fit(name, self._name),
                "-" if abstained else prediction.label,
                f"{prediction.probability:.3f}",
                str(prediction.route.expert),
                f"{prediction.route.margin:.3f}",
                *(f"{value:.1f}" for value in _stages(prediction)),
            )
        )

    def _headed(self, rows: str) -> str:
        if self._begun:
            return rows
        self._begun = True
        header = ("clip", "label", "probability", "expert", "margin", "decode ms", "route ms", "expert ms")
        return f"{self._align(header)}\n{rows}"

    def _align(self, cells: Sequence[str]) -> str:
        clip, label, *numbers = cells
        widths = (11, 6, 6, 9, 8, 9)
        aligned = [f"{clip:<{self._name}}", f"{label:<{self._label}}"]
        aligned += [f"{cell:>{width}}" for cell, width in zip(numbers, widths, strict=True)]
        return "  ".join(aligned)


def _stages(prediction: Prediction) -> tuple[float, float, float]:
    timing = prediction.milliseconds
    return timing.decode, timing.route, timing.expert


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
        "digest": bundle.pin,
        "classes": f"{len(manifest.classes)}: {', '.join(manifest.classes)}",
        "experts": f"{len(manifest.experts)}: {experts}",
        "clip": f"{contract.frames} frames of {size} from {window}, {contract.resize}",
        "precision": manifest.precision,
        "files": f"{len(manifest.files)}, {megabytes:.1f} MB, all digests match",
        "certificate": _certified(bundle),
        "signatures": _signed(bundle),
        "made with": ", ".join(f"{tool} {version}" for tool, version in manifest.tools.items()) or "not stated",
    }
    return "\n".join(f"{fact:<11} {value}" for fact, value in facts.items())


def _certified(bundle: Bundle) -> str:
    try:
        found = bundle.certificate()
    except BundleError as error:
        # The bundle itself is whole, and this says all there is to know.
        return f"NOT VALID: {error}"
    return found.headline if found else "none; `hardroute audit ... --attach` puts one in"


def _signed(bundle: Bundle) -> str:
    names = bundle.signatures
    return f"{', '.join(names)}; not checked here, `hardroute verify` does" if names else "none"


def fit(name: str, width: int) -> str:
    """A name as plain text of at most `width` characters."""
    name = printable(name)
    return name if len(name) <= width else name[: width - 3] + "..."
