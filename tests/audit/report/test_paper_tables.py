"""Tables in the paper's shape: the right attacks, of all clips, and only when they were run thoroughly."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hardroute import evaluate
from hardroute.audit.attacks import SUITES
from hardroute.audit.evaluation.evaluation import Evaluation
from hardroute.audit.evaluation.measures import BINS
from hardroute.audit.evaluation.replay import Agreement
from hardroute.audit.evaluation.statistics import Proportion
from hardroute.audit.report import paper_tables as tables
from hardroute.audit.report.figures import Distribution, Rate, Summary, UnderAttack
from hardroute.audit.report.html import cell, measure
from hardroute.audit.report.iou_plot import chosen, iou_histograms
from tests.audit.report.test_html import visible_text
from tests.audit.test_cli import Audited
from tests.support.audit_models import answers, eight_bit_clips, mixture
from tests.support.watched import baseline

EPS = (1 / 255, 2 / 255)
# All rows of the paper's tables; the suites have dearer ones too.
PAPER = sorted({name for names in tables.PARTS.values() for name in names} | set(tables.ABLATION))
GFLOPS = tables.Gflops(routed=1.0, dense=4.0, router=0.1)


def evaluated(suite: Any, thorough: bool = True) -> Evaluation:
    torch.manual_seed(0)
    model, x = mixture(), eight_bit_clips(20)
    y = answers(model, x)
    y[:4] = (y[:4] + 1) % 4
    return evaluate(model, x, y, eps=EPS, suite=suite, steps=2, thorough=thorough)


def tables_of(evaluation: Evaluation) -> tables.Tables:
    right = {eps: evaluation.robust[eps] for eps in EPS}
    agreement = Agreement(np.ones(20, bool), right, evaluation.clean, right, baseline())
    return tables.Tables.of(evaluation, agreement, EPS[1], GFLOPS)


def accuracy_of(evaluation: Evaluation) -> dict[str, Rate]:
    one = tables_of(evaluation).this_model
    assert one is not None
    return one.accuracy


def test_every_cell_is_that_of_its_attack_over_all_clips() -> None:
    evaluation = evaluated(PAPER)
    found = tables_of(evaluation)
    assert found.by_part and found.ablation and found.this_model
    assert list(found.by_part) == ["Router", "Expert", "Overall", "Joint"]
    for rows in (*found.by_part.values(), found.ablation):
        for name, cells in rows.items():
            assert [c.successes for c in cells] == [int(evaluation.per_attack[name][eps].sum()) for eps in EPS]
            assert all(c.n == 20 and c.low < c.share < c.high for c in cells if c.share and c.share < 1)
    assert list(found.ablation) == ["pgd", "la", "t-pgd", "tla-m", "j-tlga"]
    one = found.this_model
    assert one.accuracy["CLEAN"].successes == 16 and one.gflops == GFLOPS
    assert one.accuracy["worst case"] == Rate.of(evaluation.robust[EPS[1]])
    assert one.lips_r and one.lips_j
    assert one.lips_r.mean == pytest.approx(np.nanmean(evaluation.measures["tlga-r"][EPS[1]].router_slope))
    assert one.lips_j.mean == pytest.approx(np.nanmean(evaluation.measures["j-tlga"][EPS[1]].model_slope))


def test_autoattack_is_the_worst_case_over_its_members() -> None:
    _, members = tables.COLUMNS["AA"]

    def weakest(n: int) -> Any:
        def attack(model: Any, x: torch.Tensor, y: torch.Tensor, eps: float, steps: int, seed: int) -> torch.Tensor:
            return (x + eps * (1 - 2 * (n % 2))).clamp(0, 1)

        return attack

    evaluation = evaluated({name: weakest(n) for n, name in enumerate(members)})
    both = np.logical_and.reduce([evaluation.per_attack[name][EPS[1]] for name in members])
    assert accuracy_of(evaluation)["AA"].successes == both.sum()
    without = evaluated({name: weakest(n) for n, name in enumerate(members[1:])})
    assert tables_of(without).this_model is None
    whole = evaluated({"autoattack": weakest(0)})
    assert list(accuracy_of(whole)) == ["CLEAN", "AA", "worst case"]


def test_no_table_of_attacks_that_spared_the_fallen_or_were_not_run() -> None:
    assert tables_of(evaluated(PAPER, thorough=False)) == tables.Tables()
    some = tables_of(evaluated("quick"))
    assert some.by_part is None and some.ablation is None and some.this_model
    assert list(some.this_model.accuracy) == ["CLEAN", "PGD", "FGSM", "J-TLGA", "worst case"]
    assert some.this_model.lips_r is None and some.this_model.lips_j and some.this_model.lips_j.n == 16


def _measured(n: int) -> UnderAttack:
    found, none = Distribution(n=n, histogram=(n,) + (0,) * (BINS - 1)), Rate.of(Proportion(0, n))
    return UnderAttack(accuracy=none, tested=n, route_flips=none, router_iou=found, model_iou=found)


def test_histograms_show_the_papers_attacks_else_those_there_are() -> None:
    there = {name: _measured(3) for name in ("fgsm", "pgd-hard", "tlga-r", "pgd-r")} | {"pgd": _measured(0)}
    of_part = {name: found.model_iou for name, found in there.items()}
    assert chosen(of_part, ("pgd-r", "tla-r", "tlga-r")) == ["pgd-r", "tlga-r"]
    assert chosen(of_part, ("pgd", "tla-m")) == ["fgsm", "pgd-hard", "tlga-r", "pgd-r"]
    picture = iou_histograms(there)
    assert "tlga-r (n = 3)" in picture and not re.search(r"(href|src)=\"(?!#)", picture)
    assert iou_histograms({}).startswith("<svg")


def test_cells_are_short() -> None:
    assert cell(Rate.of(Proportion(45, 60))) == "75.0\n63–84" and cell(Rate.of(Proportion(0, 0))) == "–"
    assert measure(Summary(mean=0.5, high=0.625)) == "0.5 ± 0.12" and measure(Summary()) == "–"


def test_a_thorough_audit_puts_its_tables_on_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(SUITES, "paper", tuple(PAPER))
    audited = Audited(tmp_path, monkeypatch, capsys)
    audited.policy.write_text(
        audited.policy.read_text().replace('"quick"', '"paper"').replace("clips = 100", "clips = 12")
    )
    titles = ("This model, attack by attack", "Accuracy by the part attacked", "What each ingredient of J-TLGA adds")
    assert audited.run() == 0, audited.stderr
    text, report = visible_text(audited.out / "report.html"), audited.report()
    assert not any(title in text for title in titles) and "rows cannot be compared" in text
    spared = report["cost"]
    of_each = [found for point in report["eps"] for found in point["per_attack"].values()]
    assert all(found["tested"] == found["router_iou"]["n"] == found["route_flips"]["n"] for found in of_each)
    assert len({found["tested"] for found in of_each}) > 1
    assert spared["share"] < 1 and not report["thorough"]
    assert audited.run("--thorough") == 0, audited.stderr
    text, report = visible_text(audited.out / "report.html"), audited.report()
    assert all(title in text for title in titles) and "rows cannot be compared" not in text
    assert report["thorough"] and report["cost"]["share"] == pytest.approx(1)
    assert report["cost"]["spent"]["expert_passes"] > spared["spent"]["expert_passes"]
    assert report["gflops"]["routed"] < report["gflops"]["dense"]
    for point in report["eps"]:
        for found in point["per_attack"].values():
            assert found["tested"] == found["router_iou"]["n"] == sum(found["router_iou"]["histogram"]) == 12


@pytest.mark.slow
def test_the_full_suite_fills_every_column(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    audited = Audited(tmp_path, monkeypatch, capsys)
    policy = audited.policy.read_text().replace('"quick"', '"full"').replace("clips = 100", "clips = 6")
    audited.policy.write_text(policy.replace("[1, 2]", "[2]").replace("steps = 3", "steps = 2"))
    assert audited.run("--thorough") == 0, audited.stderr
    report = audited.report()
    assert list(report["tables"]["this_model"]["accuracy"]) == ["CLEAN", *tables.COLUMNS, "worst case"]
    assert {check["name"] for check in report["verdict"]["checks"]} >= {"gradients lead", "weakest expert"}
    cost = report["cost"]["per_attack"]
    # Square asks 5,000 times and follows no gradient.
    assert cost["square"]["2"]["expert_backward"] == 0 < cost["apgd-ce"]["2"]["expert_backward"]
    assert "gradients lead" in visible_text(audited.out / "report.html")
