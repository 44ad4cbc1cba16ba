"""Methods side by side, at equal training compute."""

from hardroute.training.comparison.compare import compare
from hardroute.training.comparison.report import draw, table

__all__ = ["compare", "draw", "table"]
