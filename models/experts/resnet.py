"""What the residual video networks share: the block of two convolutions and a shortcut, the stage, the network."""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from hardroute.models.normalize import BatchNorm3d, Normalize

Stride = tuple[int, int, int]
# (input channels, output channels, stride in T, H, W) -> the two convolutions of a block; the first one strides.
Pair = Callable[[int, int, Stride], tuple[nn.Module, nn.Module]]

EVERYWHERE: Stride = (2, 2, 2)
SPACE: Stride = (1, 2, 2)


def conv3d(inputs: int, outputs: int, kernel: Stride, stride: Stride = (1, 1, 1)) -> nn.Conv3d:
    """A convolution without bias (batch norm follows) whose padding keeps the size at stride 1."""
    padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
    return nn.Conv3d(inputs, outputs, kernel, stride, padding, bias=False)


def plain(time: int) -> Pair:
    """Blocks of two convolutions that are 3x3 in space and `time` in time."""

    def pair(inputs: int, outputs: int, stride: Stride) -> tuple[nn.Module, nn.Module]:
        return conv3d(inputs, outputs, (time, 3, 3), stride), conv3d(outputs, outputs, (time, 3, 3))

    return pair


class BasicBlock(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: Stride, pair: Pair) -> None:
        super().__init__()
        first, second = pair(inputs, outputs, stride)
        self.conv1 = nn.Sequential(first, BatchNorm3d(outputs), nn.ReLU(inplace=True))
        self.conv2 = nn.Sequential(second, BatchNorm3d(outputs))
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module = nn.Identity()
        if max(stride) > 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                conv3d(inputs, outputs, (1, 1, 1), stride),
                BatchNorm3d(outputs),
            )

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.conv2(self.conv1(x)) + self.downsample(x))


def stage(inputs: int, outputs: int, depth: int, stride: Stride, pair: Pair) -> nn.Sequential:
    """`depth` blocks, of which the first one strides and changes the channels; none: the identity."""
    return nn.Sequential(
        *(
            BasicBlock(inputs if i == 0 else outputs, outputs, stride if i == 0 else (1, 1, 1), pair)
            for i in range(depth)
        )
    )


def initialise(network: nn.Module) -> None:
    """He initialisation of the convolutions."""
    for module in network.modules():
        if isinstance(module, nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


class VideoResNet(nn.Module):
    """(N, 3, T, H, W) in [0, 1] -> (N, classes) logits; four stages of width, 2, 4 and 8 times width channels.

    Args:
        stem: what comes before the first stage: 3 -> width channels.
        blocks: residual blocks of each stage; a stage of 0 is left out.
        stride: of every stage but the first.
        pair: the convolutions of a block.
    """

    def __init__(
        self, stem: nn.Sequential, classes: int, width: int, blocks: Sequence[int], stride: Stride, pair: Pair
    ) -> None:
        super().__init__()
        self.normalize = Normalize()
        self.stem = stem
        channels, stages = width, []
        for index, depth in enumerate(blocks):
            outputs = width * 2**index if depth else channels
            stages.append(stage(channels, outputs, depth, stride if index else (1, 1, 1), pair))
            channels = outputs
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.avgpool = nn.AdaptiveAvgPool3d(1)
        self.fc = nn.Linear(channels, classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(self.normalize(x))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.avgpool(x).flatten(1))
