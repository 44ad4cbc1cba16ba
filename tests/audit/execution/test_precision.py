"""Attacks that see the model in bfloat16: what they find is judged by the model itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hardroute.audit.attacks import ATTACKS
from hardroute.audit.evaluation.evaluator import evaluate
from hardroute.audit.execution import precision as half
from hardroute.audit.execution.precision import require_precision, seen_by_attacks
from hardroute.models import ExpertSpec, ModelSpec, VideoMoE, build_model
from hardroute.runtime.errors import BackendError
from tests.audit.test_cli import Audited


@pytest.fixture
def model() -> VideoMoE:
    torch.manual_seed(0)
    return build_model(ModelSpec(classes=3, experts=(ExpertSpec(width=2, blocks=(1, 0, 0, 0)),) * 2)).eval()


@pytest.fixture
def audited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Audited:
    monkeypatch.setattr(half, "has_bf16", lambda device: True)
    return Audited(tmp_path, monkeypatch, capsys)


def test_it_is_the_same_network_rounded(model: VideoMoE) -> None:
    x = torch.rand(4, 3, 2, 16, 16)
    seen = seen_by_attacks(model, "bf16")
    assert seen(x).dtype == torch.float32
    assert not torch.equal(seen(x), model(x))
    torch.testing.assert_close(seen(x), model(x), atol=0.05, rtol=0.05)
    assert {id(weight) for weight in seen.parameters()} == {id(weight) for weight in model.parameters()}
    assert not seen.training
    assert seen_by_attacks(model, "fp32") is model


def test_verdicts_are_those_of_the_model_itself(model: VideoMoE) -> None:
    x = torch.rand(6, 3, 2, 16, 16)
    y, seen = model(x).argmax(1), []

    def nothing(attacked: VideoMoE, x: Tensor, y: Tensor, **given: Any) -> Tensor:
        seen.append(attacked)
        return x

    found = evaluate(model, x, y, suite={"nothing": nothing}, precision="bf16")
    assert seen[0] is not model
    assert found.robust[8 / 255].all()
    assert not found.measures["nothing"][8 / 255].router_iou[0] < 1  # the same logits, to the last bit


def test_an_attack_in_half_precision_is_about_as_strong(model: VideoMoE) -> None:
    x = torch.rand(24, 3, 2, 16, 16)
    y = model(x).argmax(1)

    def margin(precision: str) -> Tensor:
        x_adv = ATTACKS["pgd"](seen_by_attacks(model, precision), x, y, 2 / 255, 10, 0)
        return torch.nn.functional.cross_entropy(model(x_adv), y, reduction="none").mean()

    clean = torch.nn.functional.cross_entropy(model(x), y)
    assert margin("bf16") - clean > 0.9 * (margin("fp32") - clean) > 0


def test_an_audit_in_half_precision_says_so_and_certifies_nothing(audited: Audited) -> None:
    assert audited.run("--attack-precision", "bf16") == 0, audited.stderr
    assert audited.report()["attack_precision"] == "bf16"
    assert "in bf16" in (audited.out / "report.html").read_text()
    assert "no certificate: attacks saw the model in bf16" in audited.stdout
    assert not (audited.out / "certificate.json").exists()
    assert audited.run() == 0
    assert (audited.out / "certificate.json").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [(["--attack-precision", "fp8"], "fp32, bf16"), (["--attack-precision", "bf16", "--attach"], "leave")],
)
def test_a_precision_that_cannot_be(audited: Audited, words: list[str], says: str) -> None:
    assert audited.run(*words) == 2
    assert says in audited.stderr
    assert not audited.out.exists()


def test_a_processor_without_bfloat16_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(half, "has_bf16", lambda device: False)
    with pytest.raises(BackendError, match="no bfloat16"):
        require_precision("bf16", "cpu")
    require_precision("fp32", "cpu")
