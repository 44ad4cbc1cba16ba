"""What an outer loss may add to cross-entropy: how far an attack moved a head's answer, or how steep the loss is.

Each term is one number per clip at the attacked clip x_adv, small where the model is steady. The paper on J-TLAT
compares its Lipschitz term (`lip` of audit.attacks.objectives) with these; it names NR and GR by citation only, so
these two are our reading: a penalty on the norm of the logits, and one on the gradient of the loss.
"""

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, cross_entropy

from hardroute.audit.attacks import Head, Objective, Reference, Settings, Target, label, lip
from hardroute.models import Outputs


def _divergence(p: Tensor, q: Tensor) -> Tensor:
    """KL(p || q) per clip, from log-probabilities (N, K)."""
    return (p.exp() * (p - q)).sum(1)


def kl(head: Head, towards: Target = label) -> Objective:
    """KL(clean || attacked) of the softmax, as in TRADES (Zhang et al. 2019)."""
    return Objective(lambda out, x, ref, s: _divergence(ref.clean(head).log_softmax(1), head(out, ref).log_softmax(1)))


def js(head: Head, towards: Target = label) -> Objective:
    """Jensen-Shannon divergence of the softmax at the clean and the attacked clip, in [0, log 2]."""

    def value(outputs: Outputs, x_adv: Tensor, reference: Reference, settings: Settings) -> Tensor:
        p, q = reference.clean(head).log_softmax(1), head(outputs, reference).log_softmax(1)
        middle = torch.stack([p, q]).logsumexp(0) - torch.log(p.new_tensor(2.0))
        return (_divergence(p, middle) + _divergence(q, middle)) / 2

    return Objective(value)


def cos(head: Head, towards: Target = label) -> Objective:
    """One minus the cosine of the angle between the clean and the attacked logits, in [0, 2]."""
    return Objective(lambda out, x, ref, s: 1 - cosine_similarity(ref.clean(head), head(out, ref), dim=1))


def nr(head: Head, towards: Target = label) -> Objective:
    """Mean square of the attacked logits."""
    return Objective(lambda out, x, ref, s: head(out, ref).square().mean(1))


def gr(head: Head, towards: Target = label) -> Objective:
    """Squared norm of the gradient of cross-entropy with respect to the attacked clip, which must require one."""

    def value(outputs: Outputs, x_adv: Tensor, reference: Reference, settings: Settings) -> Tensor:
        loss = cross_entropy(head(outputs, reference), towards(reference), reduction="sum")
        (gradient,) = torch.autograd.grad(loss, x_adv, create_graph=True)
        return gradient.square().flatten(1).sum(1)

    return Objective(value)


# (head, what it is to answer) -> the term; by the names that steps of `hardroute.training.methods` have.
TERMS: Final[dict[str, Callable[[Head, Target], Objective]]] = {
    "lip": lambda head, towards: lip(head),
    "js": js,
    "cos": cos,
    "kl": kl,
    "nr": nr,
    "gr": gr,
}
OF_THE_CLIP: Final = frozenset({"gr"})  # terms that look at the loss' own gradient with respect to the clip
