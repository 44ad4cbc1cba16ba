"""A run as a bundle."""
