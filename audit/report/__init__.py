"""The report: all that was measured and under which conditions, as JSON, as a page and as pictures."""

from hardroute.audit.report.certificate import data_digest
from hardroute.audit.report.plots import BLUE, GRID, INK, LINES, MUTED, ORANGE, figure, save

__all__ = ["BLUE", "GRID", "INK", "LINES", "MUTED", "ORANGE", "data_digest", "figure", "save"]
