"""Proof, where attacks stop: what no perturbation within eps can do to a route, and how fast scores can change."""

from hardroute.audit.proof.lipschitz import jumps, lipschitz_bound
from hardroute.audit.proof.network import ProofError
from hardroute.audit.proof.routes import RouteProof, RouteProver, excluded, prove_routes

__all__ = [
    "ProofError",
    "RouteProof",
    "RouteProver",
    "excluded",
    "jumps",
    "lipschitz_bound",
    "prove_routes",
]
