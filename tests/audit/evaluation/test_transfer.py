"""The transfer matrix against single attacks by hand, and what it does to an audit's headline and verdict."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hardroute import Bundle, evaluate
from hardroute.audit.attacks import ATTACKS
from hardroute.audit.evaluation.transfer import AUDITED, TRANSFERRED, Transfer, counted_in, felled_by, show, transfer
from hardroute.audit.execution.journal import Journal, Member
from hardroute.audit.execution.processes import workers
from hardroute.models import VideoMoE
from hardroute.runtime.clips import ClipContract
from hardroute.runtime.errors import MethodError
from tests.audit.report.test_html import visible_text
from tests.audit.test_cli import Audited
from tests.support import bundles
from tests.support.audit_bundles import bundle_with_twin, lax_policy
from tests.support.audit_models import answers, eight_bit_clips, mixture

EPS = 4 / 255


def three() -> dict[str, VideoMoE]:
    torch.manual_seed(0)
    return {"a": mixture(), "b": mixture(), "c": mixture(experts=2)}


def clips(models: dict[str, VideoMoE]) -> tuple[torch.Tensor, torch.Tensor]:
    x = eight_bit_clips(50)
    y = answers(models["a"], x)
    y[::5] = (y[::5] + 1) % 4
    return x, y


def same(one: Transfer, other: Transfer) -> bool:
    return all(
        np.array_equal(one.held[a][s][t], other.held[a][s][t])
        for a in one.attacks
        for s in one.sources
        for t in one.targets
    )


def test_the_matrix_is_what_single_attacks_give() -> None:
    models = three()
    x, y = clips(models)
    found = transfer(models, x, y, ["fgsm", "pgd-margin"], EPS, 4, sources=["a", "b"], batch_size=16)
    assert found.sources == ("a", "b") and found.targets == ("a", "b", "c")
    for attack in found.attacks:
        for source in found.sources:
            x_adv = ATTACKS[attack](models[source], x, y, EPS, 4)
            for target, model in models.items():
                clean = (model(x).argmax(1) == y).numpy()
                held = clean & (model(x_adv).argmax(1) == y).numpy()
                assert np.array_equal(found.clean[target], clean)
                assert np.array_equal(found.held[attack][source][target], held)
                assert found.accuracy(attack, source, target).successes == held.sum()
    white, black = found.held["pgd-margin"]["a"]["a"], found.held["pgd-margin"]["b"]["a"]
    assert white.sum() < black.sum() <= found.clean["a"].sum() == 40
    assert (found.white_box("a") == (found.held["fgsm"]["a"]["a"] & white)).all()


def test_the_white_box_cell_is_that_of_the_evaluation() -> None:
    models = three()
    x, y = clips(models)
    alone = evaluate(models["a"], x, y, eps=(EPS,), suite=["pgd", "tt"], steps=3)
    found = transfer(models, x, y, ["pgd", "tt"], EPS, 3, sources=["a"])
    for attack in found.attacks:
        assert (found.held[attack]["a"]["a"] == alone.per_attack[attack][EPS]).all()


def transfer_beside(folder: Path, member: Member) -> None:
    models = three()
    transfer(models, *clips(models), ["fgsm", "pgd"], EPS, 3, batch_size=16, journal=Journal(folder, "k", member))


@pytest.mark.slow
def test_processes_and_a_journal_give_the_same_matrix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = three()
    x, y = clips(models)
    one = transfer(models, x, y, ["fgsm", "pgd"], EPS, 3, batch_size=16)
    with workers(2, partial(transfer_beside, tmp_path)) as member:
        journal = Journal(tmp_path, "k", member)
        assert same(one, transfer(models, x, y, ["fgsm", "pgd"], EPS, 3, batch_size=16, journal=journal))
    monkeypatch.setattr(
        "hardroute.audit.evaluation.transfer.show", lambda *what: pytest.fail("all of it is in the journal")
    )
    book = Journal(tmp_path, "k")
    again = transfer(models, x, y, ["fgsm", "pgd"], EPS, 3, batch_size=16, journal=book)
    assert same(one, again) and (again.passes == one.passes).all() and one.passes.all()
    monkeypatch.setattr("hardroute.audit.evaluation.transfer.show", show)
    other = {**models, "b": mixture()}
    told = {"b": "another bundle of that name"}
    found = transfer(other, x, y, ["fgsm"], EPS, 3, batch_size=16, journal=book, called=told)
    assert not same(transfer(other, x, y, ["fgsm"], EPS, 3), transfer(models, x, y, ["fgsm"], EPS, 3))
    assert same(found, transfer(other, x, y, ["fgsm"], EPS, 3))


def test_a_journal_tells_models_apart_that_changed_names(tmp_path: Path) -> None:
    models = three()
    x, y = clips(models)
    swapped = {"a": models["a"], "c": models["b"], "b": models["c"]}
    book, digests = Journal(tmp_path, "k"), ("A", "B", "C")
    for each in (models, swapped):
        called = dict(zip(each, digests, strict=True))
        assert same(
            transfer(each, x, y, ["fgsm"], EPS, 1), transfer(each, x, y, ["fgsm"], EPS, 1, journal=book, called=called)
        )


def test_models_are_left_as_they_were() -> None:
    model, x = mixture().train(), eight_bit_clips(4)
    transfer({"m": model}, x, torch.tensor([0, 1, 2, 3]), ["pgd"], eps=EPS, steps=2)
    assert model.training and all(weight.requires_grad and weight.grad is None for weight in model.parameters())


def test_nothing_to_compare_is_told() -> None:
    x, y = eight_bit_clips(2), torch.tensor([0, 1])
    for models, sources in (({}, None), ({"m": mixture()}, ["n"]), ({"m": mixture()}, [])):
        with pytest.raises(MethodError, match="at least one source"):
            transfer(models, x, y, sources=sources)
    with pytest.raises(MethodError, match="unknown attack"):
        transfer({"m": mixture()}, x, y, ["nonsense"])


def test_what_falls_to_a_transferred_clip_has_fallen() -> None:
    """An audit with FGSM alone, against a twin of the model that PGD is run on."""
    model, x = mixture(), eight_bit_clips(60)
    y = answers(model, x)
    alone = evaluate(model, x, y, eps=(EPS / 2, EPS, 2 * EPS), suite=["fgsm"], steps=4)
    models = {AUDITED: model, "twin": model, "other": mixture()}
    found = transfer(models, x, y, ["fgsm", "pgd-margin"], EPS, 4, standing=alone.robust[EPS], batch_size=25)
    joined, only = counted_in(alone, found)
    fell = ~found.white_box("twin")
    new = alone.robust[EPS] & fell
    # PGD on the model itself sees them too, so none falls to transfer only.
    assert new.any() and not only.any()
    assert (joined.robust[EPS / 2] == alone.robust[EPS / 2]).all()
    for eps in (EPS, 2 * EPS):
        assert (joined.robust[eps] == (alone.robust[eps] & ~fell)).all()
        shown = joined.adversarial[eps][new].transpose(0, 4, 1, 2, 3) / np.float32(255)
        assert (np.abs(shown - x[new].numpy()) <= eps + 1e-6).all()
        with torch.no_grad():
            outputs = model.outputs(torch.from_numpy(shown))
        assert (outputs.deployed.argmax(1).numpy() == joined.adversarial_label[eps][new]).all()
        assert (outputs.route.numpy() == joined.adversarial_route[eps][new]).all()
    in_8_bits = joined.adversarial_label[EPS][new] != alone.labels[new]
    assert in_8_bits.any()
    assert {joined.makers[by] for by in joined.adversarial_by[EPS][new][in_8_bits]} == {"pgd-margin"}
    assert (alone.adversarial[EPS][~new] == joined.adversarial[EPS][~new]).all()
    clip = int(np.flatnonzero(new)[0])
    assert {"pgd-margin", "pgd-margin from twin"} <= set(felled_by(found, clip))
    # Without the attacks on the model itself, the same clips fall to transfer alone.
    held = {attack: dict(by) for attack, by in found.held.items()}
    for by in held.values():
        by[AUDITED] = {**by[AUDITED], AUDITED: alone.clean}
    blind = Transfer(EPS, found.attacks, found.sources, found.targets, found.clean, held, found.shown)
    assert counted_in(alone, blind)[1][new].all()


class WithSource(Audited):
    """And a second bundle, `other`, of the same classes and contract."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        super().__init__(folder, monkeypatch, capsys)
        self.other = folder / "other"
        bundle_with_twin(self.other, monkeypatch, seed=5)


@pytest.fixture
def audited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> WithSource:
    return WithSource(tmp_path, monkeypatch, capsys)


def test_a_source_fills_a_table_and_its_clips_count(audited: WithSource) -> None:
    assert audited.run() == 0, audited.stderr
    assert audited.report()["transfer"] is None and "Transfer between models" not in visible_text(
        audited.out / "report.html"
    )
    # The same model under another name: what PGD finds there, PGD finds here.
    assert audited.run("--source", f"same={audited.bundle}", "--source", f"other={audited.other}") == 0, audited.stderr
    report, text = audited.report(), visible_text(audited.out / "report.html")
    found = report["transfer"]
    assert list(found["accuracy"]) == list(found["clean"]) == [AUDITED, "same", "other"]
    assert all(list(rows) == list(TRANSFERRED) for rows in found["accuracy"].values())
    for attack in TRANSFERRED:
        one, two = found["accuracy"][AUDITED][attack], found["accuracy"]["same"][attack]
        assert one == two and one[AUDITED] == one["same"]
        assert all(cell["n"] == 24 and cell["low"] <= cell["share"] <= cell["high"] for cell in one.values())
    assert found["paired"]["same"] == {"this_only": 0, "other_only": 0, "p": 1.0}
    assert found["models"]["other"] == {"digest": bundles.digest_of(audited.other), "undefended": False}
    assert "Transfer between models" in text and "shown to other" in text
    assert [row["name"] for row in found["attacks"]] == list(TRANSFERRED) and found["attacks"][2]["steps"] == 10
    assert "For transfer alone: tt, tla-m." in text
    checks = {check["name"]: check for check in report["verdict"]["checks"]}
    assert checks["white box leads"]["measured"] == 0 and "same or other" in checks["white box leads"]["sentence"]
    gate = report["eps"][-1]
    assert sum(clip["holds"]["2"] for clip in report["clips"]) == gate["worst_case"]["successes"]
    assert gate["worst_case"]["successes"] <= min(
        r[AUDITED]["successes"] for s in found["accuracy"].values() for r in s.values()
    )
    assert report["cost"]["transfer"]["expert_passes"] > 0 < report["cost"]["sanity"]["expert_passes"]
    certificate = json.loads((audited.out / "certificate.json").read_text())
    assert certificate["sources"] == found["models"]


def test_a_model_that_foreign_clips_fell_more_than_its_own_attacks_is_refused(
    audited: WithSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own gradients are cut; those of the same model as a source are not."""
    from hardroute.audit import bundles

    known = bundles.load_twin
    cut: list[Any] = []

    def load(bundle: Bundle) -> VideoMoE:
        model = known(Bundle.open(audited.bundle))
        if bundle.root == audited.bundle:
            cut.append(model)
            model.router.register_forward_pre_hook(lambda module, given: (given[0].detach(),))
            for expert in model.experts:
                expert.register_forward_pre_hook(lambda module, given: (given[0].detach(),))
        return model

    monkeypatch.setattr(bundles, "load_twin", load)
    assert audited.run() == 1
    untransferred = audited.report()["eps"][-1]["worst_case"]["successes"]
    assert audited.run("--source", f"clear={audited.other}") == 1 and cut
    report = audited.report()
    failed = [check["name"] for check in report["verdict"]["checks"] if not check["passed"]]
    assert "white box leads" in failed
    assert report["eps"][-1]["worst_case"]["successes"] < untransferred
    assert any("from clear" in name for clip in report["clips"] for name in clip["felled_by"]["2"])


@pytest.mark.parametrize(("eps", "steps", "falls"), [(1, 1, False), (24, 3, True)])
def test_an_undefended_model_must_fall(audited: WithSource, eps: int, steps: int, falls: bool) -> None:
    text = lax_policy(audited.policy).read_text().replace("steps = 3", f"steps = {steps}")
    audited.policy.write_text(text.replace("[1, 2]", f"[{eps}]").replace("gate_eps = 2", f"gate_eps = {eps}"))
    code = audited.run("--undefended", f"plain={audited.bundle}", "--source", f"other={audited.other}")
    check = next(check for check in audited.report()["verdict"]["checks"] if check["name"] == "plain falls")
    assert (check["measured"] <= check["bound"]) is falls and check["bound"] == pytest.approx(1 / 3)
    assert code == (0 if falls else 1), audited.stdout
    assert [m["undefended"] for m in audited.report()["transfer"]["models"].values()] == [True, False]


def test_an_undefended_model_that_never_stood_shows_nothing(audited: WithSource) -> None:
    """Of three classes, the labels of `other` are all but random here."""
    assert audited.run("--undefended", f"plain={audited.other}") == 1
    failed = [check for check in audited.report()["verdict"]["checks"] if not check["passed"]]
    assert [check["name"] for check in failed] == ["plain falls"] and "shows nothing" in failed[0]["sentence"]


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("other", "write NAME=BUNDLE"),
        ("a b=x", "write NAME=BUNDLE"),
        ("<i>=x", "write NAME=BUNDLE"),
        ("x=none", "none: no such bundle"),
        ("a={other}", "another source of that name"),
        ("x={contract}", "its contract"),
        ("x={classes}", "its classes"),
        ("x={twinless}", "no PyTorch twin"),
    ],
)
def test_a_source_that_cannot_be_used_is_one_line(
    audited: WithSource, monkeypatch: pytest.MonkeyPatch, source: str, complaint: str
) -> None:
    folder = audited.bundle.parent
    bundle_with_twin(folder / "contract", monkeypatch, contract=ClipContract(frames=2, height=8, width=8))
    bundle_with_twin(folder / "classes", monkeypatch, classes=("right", "left", "up"))
    bundles.make_bundle(folder / "twinless")
    where = {name: folder / name for name in ("other", "contract", "classes", "twinless")}
    assert audited.run("--source", f"a={audited.other}", "--source", source.format(**where)) == 2
    assert re.search(f"^error: .*{complaint}", audited.stderr.strip().splitlines()[-1]), audited.stderr
    assert not audited.out.exists()
