"""How the watch compares, and when an answer is withheld."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from hardroute.runtime.settings import Settings


class WatchSettings(Settings):
    """What `Watch` is told, which says more of each. Raises SettingsError."""

    what: ClassVar[str] = "watch"

    false_alarm: Annotated[float, Field(gt=0, lt=1)] = Field(
        1e-6, description="Highest chance of a false alarm per compared window."
    )
    every: Annotated[int, Field(ge=1)] = Field(
        1, description="The watch compares one of so many windows of each source."
    )
    refresh: Annotated[int, Field(ge=1)] = Field(
        10_000, description="After so many windows the watch compares with the certified clips alone again."
    )
    seed: Annotated[int, Field(ge=0)] | None = Field(None, description="Of the draws that break ties; default: none.")
