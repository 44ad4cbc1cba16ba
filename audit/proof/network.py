"""A network as a list of steps from one clip to its scores, in float64: what bounds are computed on."""

from __future__ import annotations

import operator
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.fx import Node
from torch.fx.node import map_arg

from hardroute.audit.attacks import frozen
from hardroute.audit.proof.operators import Slot, Step, Unbounded, operator_name, passes_on, step
from hardroute.runtime.errors import HardrouteError

# Operators that make a constant of nothing but a clip's shape.
OF_THE_SHAPE = {"new_zeros", "new_ones", "new_full", "new_empty", "zeros_like", "ones_like", "full_like"}
# torch's export is not made for two threads at once.
_EXPORTING = threading.Lock()


class ProofError(HardrouteError):
    """Nothing can be proven of a network; the message names the layer."""


@dataclass(frozen=True)
class Network:
    """The steps in order; value 0 is the clip (1, C, T, H, W), value n + 1 what step n gives.

    Attributes:
        steps: as exported for a batch of one clip; many clips are mapped over (torch.vmap), so that none can see
            another.
        output: the value that is the scores (1, K), or the scores themselves where they do not depend on the clip.
    """

    steps: tuple[Step, ...]
    output: int | Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Scores (N, K) float64 of clips x (N, C, T, H, W)."""
        if isinstance(self.output, Tensor):
            return self.output.expand(len(x), -1)
        values = [x.double().unsqueeze(1)]
        for each in self.steps:
            values.append(torch.vmap(each.apply)(*(values[place] for place in each.inputs)))
        return values[self.output].squeeze(1)


def trace(network: nn.Module, clip: Tensor, part: str = "router") -> Network:
    """The network on clips shaped like `clip` (C, T, H, W), as it computes in eval mode; left as it was.

    It is exported from shapes alone: what it does cannot depend on what a clip shows, other than by its steps.

    Args:
        part: what messages call the network.

    Raises:
        ProofError: it cannot be exported, or has a layer for which no bound is known; the message names it.
    """
    example = torch.zeros(1, *clip.shape, device=clip.device)
    with _EXPORTING, torch.inference_mode(False), torch.no_grad(), frozen(network), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            exported = torch.export.export(network, (example,), strict=False).run_decompositions({})
        except Exception as error:  # whatever a stranger's forward raises under torch.export
            said = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ProofError(
                f"{part} {type(network).__name__}: it has no fixed graph to bound (torch.export: {said[:200]}); "
                "leave out what depends on the values of a clip other than through layers"
            ) from error
        return _Reader(exported, part).network()


class _Reader:
    """Turns the nodes of an exported program into steps, those that the scores need."""

    def __init__(self, exported: ExportedProgram, part: str) -> None:
        self.part, self.graph = part, exported.graph
        self.constants: dict[str, Any] = {}
        self.clip = ""
        for spec in exported.graph_signature.input_specs:
            name = getattr(spec.arg, "name", "")
            if spec.kind is InputKind.USER_INPUT:
                self.clip = name
            else:
                target = str(spec.target)
                found = exported.state_dict.get(target)
                self.constants[name] = _real(exported.constants.get(target) if found is None else found)
        outputs = exported.graph_signature.output_specs
        if any(spec.kind is not OutputKind.USER_OUTPUT for spec in outputs):
            raise ProofError(f"{part}: it changes its own buffers as it runs; no bound holds for the next clip")
        if len(outputs) != 1:
            raise ProofError(f"{part}: it gives {len(outputs)} results, not one tensor of scores")
        self.steps: list[Step] = []
        # What each node is: a value that depends on the clip, by its place, or a constant.
        self.places: dict[Node, int] = {}
        self.fixed: dict[Node, Any] = {}
        self.like: list[Tensor] = []

    def network(self) -> Network:
        for node in self._needed():
            if node.op == "placeholder":
                self._enter_input(node)
            elif node.op == "call_function":
                try:
                    self._enter(node)
                except Unbounded as error:
                    raise ProofError(f"{self.part} layer {_layer(node)}: no bound is known: {error}") from None
        (output,) = next(node for node in self.graph.nodes if node.op == "output").args[0]
        return Network(tuple(self.steps), self.places[output] if output in self.places else self.fixed[output])

    def _needed(self) -> Iterator[Node]:
        """The nodes that the output is made of, in order."""
        nodes, needed = list(self.graph.nodes), set()
        for node in reversed(nodes):
            if node.op == "output" or node in needed:
                needed.update(node.all_input_nodes)
        return (node for node in nodes if node in needed)

    def _enter_input(self, node: Node) -> None:
        if node.name == self.clip:
            self.places[node] = 0
            self.like = [_zeros(node)]
        else:
            self.fixed[node] = self.constants[node.name]

    def _enter(self, node: Node) -> None:
        target = node.target
        inputs: list[int] = []

        def known(each: Node) -> Any:
            if each not in self.places:
                return self.fixed[each]
            inputs.append(self.places[each])
            return Slot(len(inputs) - 1)

        args, kwargs = map_arg(node.args, known), map_arg(dict(node.kwargs), known)
        if torch.Tag.nondeterministic_seeded in getattr(target, "tags", ()) and operator_name(target) != "dropout":
            raise Unbounded(f"{operator_name(target)} draws at random")
        if not inputs:
            self.fixed[node] = _real(target(*args, **kwargs))  # type: ignore[operator]
        elif operator_name(target) in OF_THE_SHAPE:
            self.fixed[node] = _real(target(self.like[inputs[0]], *args[1:], **kwargs))  # type: ignore[operator]
        elif target is operator.getitem and isinstance(args[0], Slot):
            # Steps of several results give the first: a batch norm's, or a maximum beside where it was found.
            if args[1] != 0:
                raise Unbounded("the place of a maximum, or a batch's statistics, is used as a value")
            self.places[node] = inputs[0]
        elif passes_on(target, args, kwargs):
            self.places[node] = inputs[0]
        else:
            entered = step(target, args, kwargs, _layer(node), inputs, [self.like[place] for place in inputs])
            self.steps.append(entered)
            self.like.append(torch.zeros_like(entered.apply(*entered.like)))
            self.places[node] = len(self.steps)


def _real(value: Any) -> Any:
    return value.detach().double() if isinstance(value, Tensor) and value.is_floating_point() else value


def _zeros(node: Node) -> Tensor:
    seen = node.meta["val"]
    return torch.zeros(seen.shape, dtype=torch.float64, device=seen.device)


def _layer(node: Node) -> str:
    """'features.2' (GELU): the innermost module that the operator belongs to."""
    stack = node.meta.get("nn_module_stack") or {}
    path, kind = list(stack.values())[-1] if stack else ("", "")
    kind = (kind if isinstance(kind, str) else kind.__name__).rsplit(".", 1)[-1]
    return f"'{path}' ({kind})" if path else kind or node.name
