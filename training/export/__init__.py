"""A run as a bundle."""

from hardroute.training.export.bundle import export_bundle, write_bundle

__all__ = ["export_bundle", "write_bundle"]
