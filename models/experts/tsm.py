"""TSM (Lin et al. 2019): a 2D ResNet-18 that sees time by shifting channels between neighbouring frames.

The frames stay a dimension of the clip and the 2D convolutions are 3D ones of one frame, so that the network reads as
the others do. The mean of the frames' logits is the logit of the mean feature, which is what the last layers compute.
"""

from collections.abc import Sequence

from torch import Tensor, cat, nn
from torch.nn.functional import pad

from hardroute.models.experts.resnet import SPACE, Stride, VideoResNet, conv3d
from hardroute.models.normalize import BatchNorm3d


class TemporalShift(nn.Module):
    """Moves an eighth of the channels of (N, C, T, H, W) one frame back and an eighth one ahead; edges get zeros."""

    def forward(self, x: Tensor) -> Tensor:
        part = -(-x.shape[1] // 8)
        back, ahead, still = x[:, :part, 1:], x[:, part : 2 * part, :-1], x[:, 2 * part :]
        return cat([pad(back, (0, 0, 0, 0, 0, 1)), pad(ahead, (0, 0, 0, 0, 1, 0)), still], dim=1)


def pair(inputs: int, outputs: int, stride: Stride) -> tuple[nn.Module, nn.Module]:
    """The shift sits on the residual branch, so that the shortcut keeps every frame's own features."""
    shifted = nn.Sequential(TemporalShift(), conv3d(inputs, outputs, (1, 3, 3), stride))
    return shifted, conv3d(outputs, outputs, (1, 3, 3))


def tsm(classes: int, width: int = 64, blocks: Sequence[int] = (2, 2, 2, 2)) -> nn.Module:
    """Temporal shift on a 2D ResNet-18; `width` and `blocks` as in `r3d18`."""
    stem = nn.Sequential(
        conv3d(3, width, (1, 7, 7), (1, 2, 2)),
        BatchNorm3d(width),
        nn.ReLU(inplace=True),
        nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
    )
    return VideoResNet(stem, classes, width, blocks, SPACE, pair)
