"""3D ResNet-18 (Hara et al. 2018; R3D of Tran et al. 2018) with a width setting.

Parameter names and shapes at width 64 are those of torchvision's `r3d_18`, so that its published weights fit.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from models.normalize import Normalize


def conv3d(inputs: int, outputs: int, stride: int = 1) -> nn.Conv3d:
    return nn.Conv3d(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False)


class BasicBlock(nn.Module):
    """Two 3x3x3 convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(conv3d(inputs, outputs, stride), nn.BatchNorm3d(outputs), nn.ReLU(inplace=True))
        self.conv2 = nn.Sequential(conv3d(outputs, outputs), nn.BatchNorm3d(outputs))
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv3d(inputs, outputs, kernel_size=1, stride=stride, bias=False), nn.BatchNorm3d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.conv2(self.conv1(x)) + self.downsample(x))


class VideoResNet(nn.Module):
    """(N, 3, T, H, W) in [0, 1] -> (N, classes) logits; stages of width, 2, 4 and 8 times width channels."""

    def __init__(self, classes: int, width: int, blocks: Sequence[int]) -> None:
        super().__init__()
        self.normalize = Normalize()
        self.stem = nn.Sequential(
            nn.Conv3d(3, width, kernel_size=(3, 7, 7), stride=(1, 2, 2), padding=(1, 3, 3), bias=False),
            nn.BatchNorm3d(width),
            nn.ReLU(inplace=True),
        )
        channels = width
        stages = []
        for stage, depth in enumerate(blocks):
            outputs = width * 2**stage
            strides = ([1 if stage == 0 else 2] + [1] * depth)[:depth]
            layers = []
            for stride in strides:
                layers.append(BasicBlock(channels, outputs, stride))
                channels = outputs
            stages.append(nn.Sequential(*layers))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.avgpool = nn.AdaptiveAvgPool3d(1)
        self.fc = nn.Linear(channels, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(self.normalize(x))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.avgpool(x).flatten(1))


def r3d18(classes: int, width: int = 64, blocks: Sequence[int] = (2, 2, 2, 2)) -> nn.Module:
    """3D ResNet-18; `width` channels in the first stage, `blocks` residual blocks in each of the four stages.

    A stage of 0 blocks is left out.
    """
    return VideoResNet(classes, width, blocks)
