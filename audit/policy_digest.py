"""A policy by its content: what was run and asked under it, and the SHA-256 of that."""

from __future__ import annotations

from pydantic import JsonValue

from hardroute.audit.attacks import ATTACKS, SUITES
from hardroute.audit.checks import CHECKS, SAMPLE, Check
from hardroute.audit.policy import Policy
from hardroute.runtime.bundle import definition_digest


def definition(policy: Policy) -> dict[str, JsonValue]:
    """What an audit under the policy does and asks, in full and as JSON has it.

    The names of policy, suite and attacks are not in it: an attack is there by its objective, search and settings, so
    that a suite that changes under the same name changes this, and a policy that is renamed does not.
    """
    rules = policy.attacks
    return {
        "data": policy.data.model_dump(mode="json"),
        "attacks": [ATTACKS[name].definition(rules.steps) for name in SUITES[rules.suite]],
        "eps": list(rules.eps),
        "gate_eps": rules.gate_eps,
        "steps": rules.steps,
        "seed": rules.seed,
        "checks": {name: dict(row.bounds) if isinstance(row, Check) else {} for name, row in CHECKS.items()},
        "sample": SAMPLE,
        "thresholds": policy.thresholds.model_dump(mode="json"),
    }


def digest(policy: Policy) -> str:
    """SHA-256 of its definition."""
    return definition_digest(definition(policy))
