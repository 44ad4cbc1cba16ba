"""R(2+1)D-18 (Tran et al. 2018): each 3D convolution split into one over space and one over time.

Parameter names and shapes at width 64 are those of torchvision's `r2plus1d_18`, so that its published weights fit.
"""

from collections.abc import Sequence

from torch import nn

from hardroute.models.experts.resnet import EVERYWHERE, Stride, VideoResNet, conv3d
from hardroute.models.normalize import BatchNorm3d


def split(inputs: int, middle: int, outputs: int, stride: Stride) -> nn.Sequential:
    """A convolution over space to `middle` channels, then one over time."""
    return nn.Sequential(
        conv3d(inputs, middle, (1, 3, 3), (1, *stride[1:])),
        BatchNorm3d(middle),
        nn.ReLU(inplace=True),
        conv3d(middle, outputs, (3, 1, 1), (stride[0], 1, 1)),
    )


def pair(inputs: int, outputs: int, stride: Stride) -> tuple[nn.Module, nn.Module]:
    """As many channels in the middle as give the weights of a 3x3x3 convolution (Tran et al., section 3.5)."""
    middle = max(1, inputs * outputs * 27 // (inputs * 9 + 3 * outputs))
    return split(inputs, middle, outputs, stride), split(outputs, middle, outputs, (1, 1, 1))


def r2plus1d18(classes: int, width: int = 64, blocks: Sequence[int] = (2, 2, 2, 2)) -> nn.Module:
    """R(2+1)D-18; `width` and `blocks` as in `r3d18`."""
    middle = max(1, 45 * width // 64)
    stem = nn.Sequential(
        conv3d(3, middle, (1, 7, 7), (1, 2, 2)),
        BatchNorm3d(middle),
        nn.ReLU(inplace=True),
        conv3d(middle, width, (3, 1, 1)),
        BatchNorm3d(width),
        nn.ReLU(inplace=True),
    )
    return VideoResNet(stem, classes, width, blocks, EVERYWHERE, pair)
