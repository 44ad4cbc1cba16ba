"""Whether ours finds what the libraries find: AutoAttack on images, FGSM and PGD on clips."""

from __future__ import annotations

from typing import Any

import torch
import torchattacks
from torch import Tensor, nn

from hardroute.audit.attacks import ATTACKS
from hardroute.models import VideoMoE
from hardroute.models.router import ConstantRouter
from tests.measure.peers.images import OneFrame, classifier, gratings
from tests.measure.peers.libraries import LIBRARIES

# (classes, eps): fewer than four classes, and torchattacks' difference of logits ratio is not defined.
PROBLEMS = ((4, 8 / 255), (6, 8 / 255), (8, 4 / 255))
EPS, STEPS = 8 / 255, 10


def autoattack(classes: int, eps: float, images: int) -> dict[str, Any]:
    """Standard AutoAttack of ours and of torchattacks on images that the classifier gets right."""
    model = classifier(classes)
    x, y = gratings(3 * images, classes, seed=99)
    with torch.no_grad():
        right = (model(x).argmax(1) == y).nonzero().flatten()[:images]
    x, y = x[right], y[right]
    clips = ATTACKS["autoattack"](VideoMoE(ConstantRouter(), [OneFrame(model)]).eval(), x.unsqueeze(2), y, eps)
    theirs = torchattacks.AutoAttack(model, norm="Linf", eps=eps, version="standard", n_classes=classes, seed=0)

    @torch.no_grad()
    def stands(x_adv: Tensor) -> Tensor:
        return model(x_adv).argmax(1) == y

    ours_stand, theirs_stand = stands(clips.squeeze(2)), stands(theirs(x, y))
    return {
        "classes": classes,
        "eps": f"{eps * 255:g}/255",
        "images": len(x),
        "robust, ours": _share(ours_stand),
        "robust, theirs": _share(theirs_stand),
        "equal verdicts": _share(ours_stand == theirs_stand),
        "only ours fells": int((theirs_stand & ~ours_stand).sum()),
        "only theirs fells": int((ours_stand & ~theirs_stand).sum()),
    }


def plain(clips: int = 16) -> dict[str, dict[str, float]]:
    """Largest difference of x_adv on a smooth network on clips (N, 3, 6, 16, 16), without random start."""
    torch.manual_seed(0)
    features = (nn.Conv3d(3, 6, 3, 2, 1), nn.Tanh(), nn.Conv3d(6, 8, 3, 2, 1), nn.Tanh(), nn.AdaptiveAvgPool3d(2))
    model = nn.Sequential(*features, nn.Flatten(), nn.Linear(64, 5)).eval()
    x = (torch.rand(clips, 3, 6, 16, 16) * 255).round() / 255
    with torch.no_grad():
        y = model(x).argmax(1)
    moe = VideoMoE(ConstantRouter(), [model]).eval()
    rows = {
        "FGSM": (1, ATTACKS["fgsm"].but(path="hard")(moe, x, y, EPS)),
        "PGD": (
            STEPS,
            ATTACKS["pgd-hard"].but(random_start=False, keep="last")(moe, x, y, EPS, STEPS, rel_stepsize=0.1),
        ),
    }
    return {
        attack: {
            name: float((library(model, x, y, EPS, EPS / 10, steps, False)() - ours).abs().max())
            for name, library in LIBRARIES.items()
        }
        for attack, (steps, ours) in rows.items()
    }


def _share(which: Tensor) -> float:
    return float(which.double().mean())
