"""`python -m tests.measure.peers.published`: our experts beside torchvision's networks, in the environment of
`make agree-torchvision`."""

from __future__ import annotations

import re
import tempfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Annotated

import torch
import typer
from torch import Tensor, nn

from hardroute.models import build_model
from hardroute.models.published import start_from
from hardroute.runtime.cli import main
from hardroute.runtime.errors import HardrouteError
from hardroute.training.settings import settings_from

TOLERANCE = 1e-4
KINETICS, OWN = 400, 10
CLIPS = (2, 3, 16, 112, 112)
# torchvision's network, the weights whose preset says how its clips are normalised, our expert.
NETWORKS = (("r3d_18", "R3D_18_Weights", "r3d18"), ("r2plus1d_18", "R2Plus1D_18_Weights", "r2plus1d18"))
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def agree(seed: Annotated[int, typer.Option(help="of weights and clips")] = 0) -> None:
    """Load torchvision's state dicts as `--init FILE` does, and compare what the networks compute in eval mode."""
    video = torchvision_video()
    typer.echo(f"torchvision {version('torchvision')}, torch {version('torch')}, clips {CLIPS}, seed {seed}")
    worst = 0.0
    for name, weights, kind in NETWORKS:
        torch.manual_seed(seed)
        theirs = scattered(getattr(video, name)(weights=None))
        preset = getattr(video, weights).KINETICS400_V1.transforms()
        mean, std = (torch.tensor(values).view(3, 1, 1, 1) for values in (preset.mean, preset.std))
        x = torch.rand(CLIPS)
        # All 400 classes keep their classifier; for a set of one's own it is made anew, so the features are compared.
        for classes, what in ((KINETICS, "logits"), (OWN, "features")):
            ours = initialised(kind, classes, theirs)
            if classes == OWN:
                theirs.fc = ours.fc = nn.Identity()
            with torch.no_grad():
                wanted: Tensor = theirs((x - mean) / std)
                apart = float((ours(x) - wanted).abs().max())
            worst = max(worst, apart)
            typer.echo(f"{name} -> {kind}, {what} {tuple(wanted.shape)}: differ by {apart:.1e} at most, "
                       f"largest {float(wanted.abs().max()):.2g}")  # fmt: skip
    if not worst <= TOLERANCE:
        raise HardrouteError(f"the networks differ by {worst:.1e}, more than {TOLERANCE:g}")


def initialised(kind: str, classes: int, source: nn.Module) -> nn.Module:
    """The expert of a run that starts from the state dict of `source`, saved as torchvision's files are."""
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "weights.pth")
        torch.save(source.state_dict(), file)
        settings = settings_from({"data": "", "method": "at-s", "expert": kind, "width": 64, "init": (file,)})
        experts = list(build_model(settings.model(classes)).experts)
        start_from(experts, list(settings.init))
    return experts[0].eval()


def scattered(network: nn.Module) -> nn.Module:
    """The network in eval mode, its batch norms no longer the identity, so that a swapped or lost one shows."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            for values, low, high in (
                (module.weight, 0.5, 1.5), (module.bias, -0.3, 0.3),
                (module.running_mean, -0.3, 0.3), (module.running_var, 0.5, 1.5),
            ):  # fmt: skip
                assert values is not None
                nn.init.uniform_(values, low, high)
    return network.eval()


def torchvision_video() -> ModuleType:
    """torchvision.models.video, also beside a torch that torchvision's own operators were not compiled for.

    PyPI has torchvision's CUDA build alone. Beside a CPU build of torch its library does not load, and its import then
    fails where it registers what those operators are to torch. The video networks use none of them, so it is enough
    that they have names.
    """
    spec = find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        raise HardrouteError("torchvision is not installed here; run `make agree-torchvision`")
    folder = Path(spec.submodule_search_locations[0])
    try:
        torch.ops.load_library(folder / "_C.so")
    except OSError:
        named = "".join(path.read_text() for path in folder.glob("_*_registrations.py"))
        for operator in sorted(set(re.findall(r"torchvision::(\w+)", named))):
            torch.library.define(f"torchvision::{operator}", "() -> ()")
    from torchvision.models import video

    return video


if __name__ == "__main__":
    main(app)
