"""The light router: a small 3D convolutional network that scores the experts for a clip."""

from torch import Tensor, nn

from hardroute.models.normalize import BatchNorm3d, Normalize


class ConvRouter(nn.Module):
    """(N, 3, T, H, W) in [0, 1] -> (N, experts) logits, for a few per cent of one expert's arithmetic.

    Args:
        experts: number of experts M.
        width: channels of the first layer; the two after it have 2x and 4x.
        gain: the logits' scale. The route does not depend on it, training does: at a small one, cross-entropy cannot be
            lowered by large logits, only by wide margins for what a Lipschitz term charges.
    """

    def __init__(self, experts: int, width: int = 8, gain: float = 1.0) -> None:
        super().__init__()
        self.gain = gain
        self.normalize = Normalize()
        self.features = nn.Sequential(
            nn.Conv3d(3, width, kernel_size=(3, 5, 5), stride=(1, 4, 4), padding=(1, 2, 2), bias=False),
            BatchNorm3d(width),
            nn.ReLU(inplace=True),
            nn.Conv3d(width, 2 * width, kernel_size=3, stride=2, padding=1, bias=False),
            BatchNorm3d(2 * width),
            nn.ReLU(inplace=True),
            nn.Conv3d(2 * width, 4 * width, kernel_size=3, stride=2, padding=1, bias=False),
            BatchNorm3d(4 * width),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool3d(1),
        )
        self.score = nn.Linear(4 * width, experts)

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * self.score(self.features(self.normalize(x)).flatten(1))


class ConstantRouter(nn.Module):
    """Sends every clip to expert 0: a single network seen as a mixture of one."""

    def forward(self, x: Tensor) -> Tensor:
        return x.new_zeros(x.shape[0], 1)
