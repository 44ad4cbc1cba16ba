"""Attack a routed video model the way an adversary would, and decide whether it may be served.

Example:
    >>> from audit import evaluate
    >>> result = evaluate(model, x, y, eps=(8 / 255,), suite="quick")
    >>> result.robust[8 / 255].mean()
"""

import os
from typing import TYPE_CHECKING, Any

# Read when torch loads. By default its threads spin while they wait for one another; on cores shared with other work
# an audit then took five times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

if TYPE_CHECKING:
    from audit.evaluation import Evaluation, evaluate

__all__ = ["Evaluation", "evaluate"]


def __getattr__(name: str) -> Any:
    # torch loads with the first use, not with `import audit`: a policy error should not wait for it.
    if name in __all__:
        from audit import evaluation

        return getattr(evaluation, name)
    raise AttributeError(f"module 'audit' has no attribute '{name}'")
