"""Attack a routed video model the way an adversary would, and decide whether it may be served.

The attacks are in `attacks/`, what they found in `evaluation/`, what decides in `checks/` and `policy.py`.
"""
