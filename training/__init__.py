"""Hardening: defences as schedules, the trainer that runs them, and the export of a bundle."""

import os

# Read when torch loads. By default its threads spin while they wait for one another; on cores shared with other work
# a training step was then seen to take ten times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
