"""3D ResNet-18 (Hara et al. 2018; R3D of Tran et al. 2018) with a width setting.

Parameter names and shapes at width 64 are those of torchvision's `r3d_18`, so that its published weights fit.
"""

from collections.abc import Sequence

from torch import nn

from hardroute.models.experts.resnet import EVERYWHERE, VideoResNet, conv3d, plain
from hardroute.models.normalize import BatchNorm3d


def r3d18(classes: int, width: int = 64, blocks: Sequence[int] = (2, 2, 2, 2)) -> nn.Module:
    """3D ResNet-18; `width` channels in the first stage, `blocks` residual blocks in each of the four stages.

    A stage of 0 blocks is left out.
    """
    stem = nn.Sequential(conv3d(3, width, (3, 7, 7), (1, 2, 2)), BatchNorm3d(width), nn.ReLU(inplace=True))
    return VideoResNet(stem, classes, width, blocks, EVERYWHERE, plain(time=3))
