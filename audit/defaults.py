"""What an attack, an evaluation and a check take where nobody says otherwise: each figure once."""

from __future__ import annotations

from typing import Final

EPS: Final = 8 / 255  # L-inf radius in pixel range [0, 1]: the paper's
STEPS: Final = 10
BATCH_SIZE: Final = 32  # clips at once; changes speed and memory, not results
