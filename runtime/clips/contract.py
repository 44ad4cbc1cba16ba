"""What a network expects of a clip; it travels in the bundle, so serving cannot drift from hardroute.training."""

from __future__ import annotations

from typing import Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

#: Of one clip, all frames together: 200 MB as the float32 that a network takes.
MAX_PIXELS: Final = 1 << 24


class ClipContract(BaseModel):
    """Frames, sampling window, size, resize rule, colour order and type of the clip that a network takes.

    `frames` timestamps lie at the centres of `frames` equal parts of the window; the window is the first
    `seconds` of the video, or the whole video where `seconds` is None. (Where several clips of a video are
    asked for, further windows of so many seconds.) A timestamp shows the last frame that has started by then, by the
    container's clock (`sampling.Clock`), from the first frame on. Normalisation is the network's own and not part of
    this.

    Frames are shown upright, as their display matrix says, and `resize` keeps the aspect of the picture, whatever
    the shape of its pixels. Colour: 8-bit RGB by the matrix that the frame states (BT.709, FCC, BT.601, SMPTE 240M,
    BT.2020, YCgCo; BT.601 if none, at any size) and by its range (limited if none, full for JPEG's formats).
    Primaries and transfer are left as coded: wide gamut and HDR are not mapped. Another matrix is refused.
    Interlaced frames are woven, both fields as coded, and each field's chroma is its own.

    >>> ClipContract(frames=12, height=48, width=48).shape
    (3, 12, 48, 48)
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    # The bounds, and that on their product, keep a hostile manifest from asking for a clip that does not fit in memory.
    frames: int = Field(default=12, ge=1, le=256)
    height: int = Field(default=48, ge=8, le=1024)
    width: int = Field(default=48, ge=8, le=1024)
    seconds: float | None = Field(default=None, gt=0, le=3600, allow_inf_nan=False)
    resize: Literal["letterbox", "short-side-crop", "stretch"] = "letterbox"
    color: Literal["RGB"] = "RGB"
    dtype: Literal["uint8"] = "uint8"

    @model_validator(mode="after")
    def _fits_in_memory(self) -> Self:
        pixels = self.frames * self.height * self.width
        if pixels > MAX_PIXELS:
            raise ValueError(f"frames x height x width is {pixels}, more than the limit of {MAX_PIXELS}")
        return self

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(3, frames, height, width): what the network takes, without the batch."""
        return (3, self.frames, self.height, self.width)
