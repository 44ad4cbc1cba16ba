"""bfloat16 on processors: what of it is refused, because torch computes it wrong."""

import pytest
import torch

from hardroute.models import build_model
from hardroute.models.restoration import StripConv3d
from hardroute.runtime.clips import ClipContract
from hardroute.runtime.errors import BackendError
from hardroute.training import precision
from hardroute.training.precision import Precision
from hardroute.training.settings import FitSettings

WIDE = StripConv3d.WIDEST
NARROW = {"width": 2, "router_width": 2, "experts": 1, "blocks": (1, 0, 0, 0)}


@pytest.fixture(autouse=True)
def with_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    # Nothing is computed in it here.
    monkeypatch.setattr(precision, "has_bf16", lambda device: True)


def check(size: int, name: str = "bf16", **settings: object) -> None:
    fit = FitSettings.model_validate({"data": "a set", **NARROW, "size": size, **settings})
    Precision(name, "cpu").check_planes(build_model(fit.model(2)), ClipContract(frames=2, height=size, width=size))


@pytest.mark.parametrize("expert", ["r3d18", "r2plus1d18", "tsm", "slowfast"])
def test_planes_too_wide_are_refused_and_say_what_to_do(expert: str) -> None:
    check(2 * WIDE, expert=expert)  # their first layers halve a clip
    with pytest.raises(BackendError, match=rf"{WIDE + 1} pixels wide.*smaller size"):
        check(2 * WIDE + 2, expert=expert)
    check(2 * WIDE + 2, expert=expert, name="fp32")


def test_the_check_leaves_the_network_as_it_was() -> None:
    model = build_model(FitSettings.model_validate({"data": "a set", **NARROW}).model(2))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    Precision("bf16", "cpu").check_planes(model, ClipContract(frames=2, height=32, width=32))
    assert model.training
    assert not any(part._forward_hooks for part in model.modules())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("width", [65, 96, 130])
def test_a_restoration_network_takes_its_doubled_planes_in_strips(width: int) -> None:
    check(WIDE, method="oud-m")
    torch.manual_seed(0)
    conv, x = StripConv3d(3, 4, 3, 1, 1, bias=False), torch.rand(2, 3, 2, 5, width)
    whole = conv(x)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        in_strips = conv(x)
    assert in_strips.shape == whole.shape
    torch.testing.assert_close(in_strips.float(), whole, atol=0.02, rtol=0.02)
