"""Serve a bundle: verify it, route each clip to one expert, and log the route. Needs no torch."""
