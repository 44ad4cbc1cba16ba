"""How an audit is carried out: on which device, in which arithmetic, by which processes, and what is kept."""

from hardroute.audit.execution.device import require_cuda
from hardroute.audit.execution.precision import has_bf16

__all__ = ["has_bf16", "require_cuda"]
