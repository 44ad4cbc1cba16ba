"""How much an ONNX file may make of little: the constants that say how large something is to become.

A file of ten kilobytes can ask for gigabytes: fill, repeat, stretch or pad to a size that a constant names. What is
judged is what the file itself says: tensors hold as many numbers as they declare, declared shapes have a bound, and so
has what the constants of growing operators multiply up to. A graph whose sizes come out of its input's alone (an outer
product, say) grows with the clip, whose size the contract bounds, and is not judged here.
"""

from __future__ import annotations

import itertools
import math
import struct
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from hardroute.runtime.bundle.protobuf_wire import BYTES, fields, signed, varints

#: Numbers in one tensor that no weight is: 256 MB of float32.
MAX_ELEMENTS: Final = 1 << 26
_MANY: Final = 1 << 10  # numbers; no shape has as many
# Bytes of one number, by TensorProto.DataType.
_ITEM: Final = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 16: 2}
_FORMATS: Final = {1: "f", 6: "i", 7: "q"}
# The inputs that say how large the output becomes.
_SIZES: Final = {"ConstantOfShape": (0,), "Expand": (1,), "Tile": (1,), "Resize": (2, 3)}
# Of these only the first input has to do with a size; the others are places in it.
_PICKING: Final = frozenset(
    {"Cast", "Gather", "Identity", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "Reshape", "Slice", "Split"}
    | {"Squeeze", "Unsqueeze"}
)
_SLIDING: Final = frozenset({"Conv", "ConvTranspose", "MaxPool", "AveragePool"})
_AXES: Final = 8

Numbers = Sequence[float]


class SizeError(Exception):
    """What is too large; the text goes on from the file's name."""


@dataclass
class _Node:
    op: str = ""
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    numbers: dict[str, Numbers] = field(default_factory=dict)  # attributes


@dataclass
class _Graph:
    """All graphs of a model together. Branches may use a name twice: then each meaning counts."""

    nodes: list[_Node] = field(default_factory=list)
    constants: defaultdict[str, list[Numbers]] = field(default_factory=lambda: defaultdict(list))


def check_sizes(model: memoryview) -> None:
    """Judges a model that the walk over its operators has passed.

    Raises:
        SizeError: see above.
        ValueError, IndexError: not a readable protobuf.
    """
    graph = _Graph()
    for number, _, value in fields(model):
        if number == 7 and not isinstance(value, int):
            _read_graph(value, graph)
    producers: defaultdict[str, list[_Node]] = defaultdict(list)
    for node in graph.nodes:
        for name in node.outputs:
            producers[name].append(node)
            if node.op == "Constant":
                graph.constants[name] += node.numbers.values()
    repeated, padded = 1.0, [0.0] * _AXES
    for node in graph.nodes:
        asked = 1.0
        if node.op == "Pad":
            for pads in _numbers_of(node.inputs[1:2], graph, producers):
                _add_pads(padded, pads)
            for pads in node.numbers.values():
                _add_pads(padded, pads)
        elif node.op in _SLIDING:
            _add_pads(padded, _beyond_kernel(node))
            if node.op == "ConvTranspose":
                repeated *= _product(node.numbers.get("strides", ())) * _product(
                    [1 + extra for extra in node.numbers.get("output_padding", ())]
                )
                asked = _product(node.numbers.get("output_shape", ()))
        elif node.op == "Range":
            asked = _steps(list(_numbers_of(node.inputs, graph, producers)))
        elif node.op in _SIZES:
            wanted = [node.inputs[place] for place in _SIZES[node.op] if place < len(node.inputs)]
            asked = math.prod(map(_product, _numbers_of(wanted, graph, producers)))
            # One after the other they multiply; the sizes that a Resize may be given instead of scales do not.
            if node.op == "Tile":
                repeated *= asked
            elif node.op == "Resize" and len(node.inputs) > 2:
                repeated *= max(1, math.prod(map(_product, _numbers_of([node.inputs[2]], graph, producers))))
        if max(asked, repeated, math.prod(1 + more for more in padded)) > MAX_ELEMENTS:
            raise SizeError(f"makes a tensor of more than {MAX_ELEMENTS} numbers by {node.op!r} and a constant")


def _read_graph(view: memoryview, graph: _Graph) -> list[str]:
    """Adds what is in a graph, and gives the names of its outputs."""
    outputs: list[str] = []
    for number, wire, value in fields(view):
        if isinstance(value, int) or wire != BYTES:
            continue
        if number == 1:
            graph.nodes.append(_read_node(value, graph))
        elif number == 5:
            name, numbers = _read_tensor(value)
            graph.constants[name].append(numbers)
        elif number == 15:
            _read_sparse(value)
        elif number in (11, 12, 13):
            _require(_declared(value))
            if number == 12:
                outputs += [_text(v) for n, _, v in fields(value) if n == 1 and not isinstance(v, int)]
    return outputs


def _read_node(view: memoryview, graph: _Graph) -> _Node:
    node = _Node()
    for number, wire, value in fields(view):
        if isinstance(value, int) or wire != BYTES:
            continue
        if number == 1:
            node.inputs.append(_text(value))
        elif number == 2:
            node.outputs.append(_text(value))
        elif number == 4:
            node.op = _text(value)
        elif number == 5:
            _read_attribute(value, node, graph)
    return node


def _read_attribute(view: memoryview, node: _Node, graph: _Graph) -> None:
    name, numbers, tensor = "", list[float](), bytearray()
    for number, wire, value in fields(view):
        if isinstance(value, int):
            if number in (3, 8):
                numbers.append(signed(value))
        elif number == 1:
            name = _text(value)
        elif number == 2 and len(value) == 4:
            numbers += struct.unpack("<f", value)
        elif number == 7:
            numbers += struct.unpack(f"<{len(value) // 4}f", value[: len(value) // 4 * 4])
        elif number == 8 and wire == BYTES:
            numbers += varints(value)
        elif number == 5:
            tensor += value  # a repetition of one message is its continuation
        elif number == 10:
            _read_tensor(value)
        elif number in (6, 11):
            # What a branch gives is what its node gives.
            node.inputs += _read_graph(value, graph)
        elif number in (22, 23):
            _read_sparse(value)
    if tensor:
        numbers += _read_tensor(memoryview(bytes(tensor)))[1]
    node.numbers[name] = numbers


def _read_tensor(view: memoryview) -> tuple[str, Numbers]:
    """Name of a tensor, and its numbers where they can be sizes. SizeError unless it holds what it declares."""
    dims, kind, name, raw, held, typed = list[int](), 0, "", memoryview(b""), 0, list[float]()
    for number, wire, value in fields(view):
        if isinstance(value, int):
            if number == 1:
                dims.append(signed(value))
            elif number == 2:
                kind = value
            elif number in (5, 7):
                held += 1
                if len(typed) <= _MANY:
                    typed.append(signed(value))
        elif number == 1:
            dims += varints(value)
        elif number == 8:
            name = _text(value)
        elif number == 9:
            raw = value
        elif number in (4, 5, 6, 7, 10, 11):
            held += max(1, len(value))
            if number in (5, 7) and wire == BYTES and len(value) <= 10 * _MANY:
                typed += varints(value)
            elif number == 4 and len(value) <= 4 * _MANY:
                typed += struct.unpack(f"<{len(value) // 4}f", value[: len(value) // 4 * 4])
    if kind not in _ITEM:
        raise SizeError(f"holds a tensor of the number type {kind}")
    count = math.prod(dims)
    if min(dims, default=0) < 0 or count > max(held, len(raw) // _ITEM[kind]):
        raise SizeError("holds a tensor that declares more numbers than it has")
    if raw and kind in _FORMATS and count <= _MANY:
        typed = list(struct.unpack(f"<{count}{_FORMATS[kind]}", raw[: count * _ITEM[kind]]))
    return name, typed if count <= _MANY else ()


def _read_sparse(view: memoryview) -> None:
    dims: list[int] = []
    for number, _, value in fields(view):
        if number == 3:
            dims += [signed(value)] if isinstance(value, int) else varints(value)
        elif number in (1, 2) and not isinstance(value, int):
            _read_tensor(value)
    _require(dims)


def _declared(view: memoryview) -> list[int]:
    """The dimensions of a value that are numbers: ValueInfo.type.tensor_type.shape.dim.dim_value."""
    parts = [view]
    for number in (2, 1, 2, 1):
        parts = [v for part in parts for n, _, v in fields(part) if n == number and not isinstance(v, int)]
    return [signed(v) for part in parts for n, _, v in fields(part) if n == 1 and isinstance(v, int)]


def _require(dims: Sequence[int]) -> None:
    if min(dims, default=0) < 0 or _product(dims) > MAX_ELEMENTS:
        raise SizeError(f"declares a tensor of more than {MAX_ELEMENTS} numbers")


def _numbers_of(names: Sequence[str], graph: _Graph, producers: dict[str, list[_Node]]) -> Iterator[Numbers]:
    """The constants that named values are made of."""
    seen, left = set[str](), [name for name in names if name]
    while left:
        name = left.pop()
        if name in seen:
            continue
        seen.add(name)
        yield from graph.constants.get(name, ())
        for node in producers.get(name, ()):
            if node.op != "Shape":  # of what is there already
                left += [one for one in (node.inputs[:1] if node.op in _PICKING else node.inputs) if one]


def _product(numbers: Numbers) -> float:
    """Of those above 1: the others, such as 0 for "as it is", make nothing larger."""
    return math.prod(float(number) for number in numbers if number > 1)


def _steps(constants: Sequence[Numbers]) -> float:
    numbers = [abs(number) for each in constants for number in each if number]
    return max(numbers, default=1.0) / min([1.0, *numbers])


def _add_pads(padded: list[float], pads: Numbers) -> None:
    rank = len(pads) // 2
    for axis, (begin, end) in enumerate(itertools.islice(zip(pads[:rank], pads[rank:], strict=False), _AXES)):
        # From the last axis on, for ranks differ.
        padded[(rank - 1 - axis) % _AXES] += max(0.0, begin + end)


def _beyond_kernel(node: _Node) -> Numbers:
    """Pads of an operator that slides a kernel, less what the kernel takes away again."""
    pads = list(node.numbers.get("pads", ()))
    rank = len(pads) // 2
    if node.op == "ConvTranspose":  # there they make it smaller, and the kernel larger
        return [(extent - 1) / 2 for extent in _extents(node, len(node.numbers.get("kernel_shape", ())))] * 2
    for axis, extent in enumerate(_extents(node, rank)):
        pads[axis] = max(0.0, pads[axis] + pads[rank + axis] - (extent - 1))
        pads[rank + axis] = 0
    return pads


def _extents(node: _Node, rank: int) -> list[float]:
    kernel = [*node.numbers.get("kernel_shape", ()), *[1.0] * rank][:rank]
    dilations = [*node.numbers.get("dilations", ()), *[1.0] * rank][:rank]
    return [1 + (size - 1) * dilation for size, dilation in zip(kernel, dilations, strict=True)]


def _text(value: memoryview) -> str:
    return bytes(value).decode(errors="replace")
