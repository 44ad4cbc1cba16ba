"""report.html: one self-contained page. All text is escaped: names come from manifests nobody vouches for."""

from __future__ import annotations

import jinja2
import numpy as np
from markupsafe import Markup

from hardroute.audit.evaluation.evaluation import Evaluation
from hardroute.audit.report.content import Report
from hardroute.audit.report.figures import Rate, Summary
from hardroute.audit.report.iou_plot import iou_histograms
from hardroute.audit.report.plots import accuracy_curve, amplified, load_bars, strip
from hardroute.runtime.datasets import ClipArrays

SHOWN_CLIPS = 4
SHOWN_FRAMES = 6


def render(report: Report, clips: ClipArrays, evaluation: Evaluation) -> str:
    """The page for a report, with pictures of some fallen clips."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("hardroute.audit.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = percent
    environment.filters["interval"] = interval
    environment.filters["cell"] = cell
    environment.filters["measure"] = measure
    gate, at_gate = report.policy.content.attacks.gate_eps, report.gate
    return environment.get_template("report.html.j2").render(
        report=report,
        gate=gate,
        at_gate=at_gate,
        # Drawn by matplotlib from numbers and attack names alone, so markup is safe here and only here.
        curve=Markup(_curve(report)),  # noqa: S704
        bars=Markup(load_bars(report.router.clean.load, at_gate.router.load, gate)),  # noqa: S704
        overlap=Markup(iou_histograms(at_gate.per_attack)),  # noqa: S704
        fallen=_fallen(report, clips, evaluation),
    )


def percent(share: float | None) -> str:
    """0.123 -> '12.3 %'."""
    return "–" if share is None else f"{100 * share:.1f} %"


def interval(found: Rate) -> str:
    """'75.0 % (62.8–84.2)'."""
    if found.share is None:
        return "–"
    return f"{100 * found.share:.1f} % ({100 * found.low:.1f}–{100 * found.high:.1f})"


def cell(found: Rate) -> str:
    """For a narrow column: '75.0', and the interval '63–84' on a line of its own."""
    if found.share is None:
        return "–"
    return f"{100 * found.share:.1f}\n{100 * found.low:.0f}–{100 * found.high:.0f}"


def measure(found: Summary) -> str:
    """A mean with half the width of its interval: '0.823 ± 0.21'."""
    return "–" if found.mean is None or found.high is None else f"{found.mean:.3g} ± {found.high - found.mean:.2g}"


def _curve(report: Report) -> str:
    at = [point.eps_255 for point in report.eps]

    def points(clean: Rate, rest: list[Rate]) -> list[tuple[float, Rate]]:
        return ([] if 0 in at else [(0.0, clean)]) + list(zip(at, rest, strict=True))

    worst = points(report.clean.both, [point.worst_case for point in report.eps])
    attacks = {
        attack.name: points(report.clean.audited, [point.per_attack[attack.name].accuracy for point in report.eps])
        # Rows of those that earlier attacks left are of ever other clips: no curves to lay side by side.
        for attack in (report.attacks if report.thorough else ())
    }
    policy = report.policy.content
    return accuracy_curve(worst, attacks, (policy.attacks.gate_eps, policy.thresholds.robust_accuracy))


def _fallen(report: Report, clips: ClipArrays, evaluation: Evaluation) -> list[dict[str, str | int]]:
    eps = report.policy.content.attacks.gate_eps / 255
    fooled = evaluation.clean & (evaluation.adversarial_label[eps] != evaluation.labels)
    shown = np.flatnonzero(fooled)[:SHOWN_CLIPS]
    frames = np.linspace(0, clips.frames.shape[1] - 1, min(SHOWN_FRAMES, clips.frames.shape[1])).round().astype(int)
    classes = report.bundle.classes
    answer = evaluation.adversarial_label[eps]
    return [
        {
            "file": clips.files[n],
            "label": classes[evaluation.labels[n]],
            "becomes": classes[answer[n]] if answer[n] >= 0 else "no answer",
            "expert": int(evaluation.clean_route[n]),
            "expert_after": int(evaluation.adversarial_route[eps][n]),
            "by": evaluation.makers[evaluation.adversarial_by[eps][n]],
            "before": strip(clips.frames[n, frames]),
            "after": strip(evaluation.adversarial[eps][n, frames]),
            "change": strip(amplified(clips.frames[n, frames], evaluation.adversarial[eps][n, frames])),
        }
        for n in shown
    ]
