"""Hardening: defences as schedules, the trainer that runs them, and the export of a bundle."""
