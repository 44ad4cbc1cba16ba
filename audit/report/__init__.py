"""The report: all that was measured and under which conditions, as JSON, as a page and as pictures."""

from hardroute.audit.report.content import Report, data_digest
from hardroute.audit.report.folder import PAGE, REPORT, write
from hardroute.audit.report.plots import BLUE, GRID, INK, LINES, MUTED, ORANGE, figure, save

__all__ = [
    "BLUE",
    "GRID",
    "INK",
    "LINES",
    "MUTED",
    "ORANGE",
    "PAGE",
    "REPORT",
    "Report",
    "data_digest",
    "figure",
    "save",
    "write",
]
