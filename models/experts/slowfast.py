"""SlowFast (Feichtenhofer et al. 2019) on ResNet-18: few frames with many channels beside all frames with few."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hardroute.models.experts.resnet import SPACE, conv3d, initialise, plain, stage
from hardroute.models.normalize import BatchNorm3d, Normalize

ALPHA = 4  # the slow pathway sees every fourth frame
BETA = 8  # the fast pathway has an eighth of its channels
SLOW_TIME = (1, 1, 3, 3)  # frames that the slow pathway's convolutions span, per stage


def stem(width: int, time: int) -> nn.Sequential:
    return nn.Sequential(
        conv3d(3, width, (time, 7, 7), (1, 2, 2)),
        BatchNorm3d(width),
        nn.ReLU(inplace=True),
        nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
    )


def lateral(fast: int) -> nn.Sequential:
    """From the fast pathway to the slow one: twice the channels, at the slow one's frames."""
    return nn.Sequential(conv3d(fast, 2 * fast, (5, 1, 1), (ALPHA, 1, 1)), BatchNorm3d(2 * fast), nn.ReLU(inplace=True))


class SlowFast(nn.Module):
    """(N, 3, T, H, W) in [0, 1] -> (N, classes) logits."""

    def __init__(self, classes: int, width: int, blocks: Sequence[int]) -> None:
        super().__init__()
        slow, fast = width, max(1, width // BETA)
        self.normalize = Normalize()
        self.slow_stem, self.fast_stem = stem(slow, time=1), stem(fast, time=5)
        self.laterals, self.slow_stages, self.fast_stages = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for index, depth in enumerate(blocks):
            if not depth:
                continue
            stride = SPACE if index else (1, 1, 1)
            wider_slow, wider_fast = width * 2**index, max(1, width // BETA) * 2**index
            self.laterals.append(lateral(fast))
            self.slow_stages.append(stage(slow + 2 * fast, wider_slow, depth, stride, plain(SLOW_TIME[index])))
            self.fast_stages.append(stage(fast, wider_fast, depth, stride, plain(time=3)))
            slow, fast = wider_slow, wider_fast
        self.avgpool = nn.AdaptiveAvgPool3d(1)
        self.fc = nn.Linear(slow + fast, classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.normalize(x)
        slow, fast = self.slow_stem(x[:, :, ::ALPHA]), self.fast_stem(x)
        for across, on_slow, on_fast in zip(self.laterals, self.slow_stages, self.fast_stages, strict=True):
            slow, fast = on_slow(torch.cat([slow, across(fast)], dim=1)), on_fast(fast)
        return self.fc(torch.cat([self.avgpool(slow), self.avgpool(fast)], dim=1).flatten(1))


def slowfast(classes: int, width: int = 64, blocks: Sequence[int] = (2, 2, 2, 2)) -> nn.Module:
    """SlowFast on ResNet-18; `width` channels in the slow pathway's first stage, `blocks` as in `r3d18`."""
    return SlowFast(classes, width, blocks)
