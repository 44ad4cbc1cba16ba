"""Training itself: one run from its settings to its best weights."""
