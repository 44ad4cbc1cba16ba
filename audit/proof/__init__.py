"""Proof, where attacks stop: what no perturbation within eps can do to a route."""

from hardroute.audit.proof.network import ProofError
from hardroute.audit.proof.routes import RouteProof, RouteProver, excluded, prove_routes

__all__ = ["ProofError", "RouteProof", "RouteProver", "excluded", "prove_routes"]
