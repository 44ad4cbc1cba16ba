"""Hardening: defences as schedules, the loop that runs them, and the export of a bundle."""
