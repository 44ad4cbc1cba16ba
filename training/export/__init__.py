"""A run as a bundle."""

from hardroute.training.export.bundle import export_bundle, summary, write_bundle

__all__ = ["export_bundle", "summary", "write_bundle"]
