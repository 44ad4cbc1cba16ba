"""What an ONNX file may hold before it is handed to an inference library.

Reading a model is not harmless. External tensors name files on the disk (onnxruntime follows such names,
relative to the working directory, even when the model itself comes as bytes), `EPContext` nodes carry
compiled native code for an accelerator, operators of other domains are whatever a library was extended by, and a
`Loop` need not end. So a file may hold known operators only and its weights inside; it is refused here, before any
library parses it, by walking the protobuf wire format; the runtime needs no `onnx` package for that.

Field numbers: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

from __future__ import annotations

from typing import Final

from hardroute.runtime.bundle.onnx_sizes import SizeError, check_sizes
from hardroute.runtime.bundle.protobuf_wire import BYTES, fields
from hardroute.runtime.errors import BundleError

# message -> field number -> message of that field. Only the fields on the way to a node or a tensor.
_CHILDREN: Final = {
    "model": {7: "graph", 20: "training"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
_NODE_OP_TYPE: Final = 4
_NODE_DOMAIN: Final = 7
_MODEL_FUNCTION: Final = 25
_TENSOR_EXTERNAL_DATA: Final = 13
_TENSOR_DATA_LOCATION: Final = 14

_MAX_DEPTH: Final = 64  # protobuf itself stops at 100

_EXPORTED: Final = """
    Add ArgMax Cast Clip Concat ConstantOfShape Conv Div Equal Gather Gemm Identity If MaxPool NonZero Pad ReduceMax
    ReduceMean Relu Reshape Resize ScatterND Shape Slice Sub Transpose
"""
_USUAL: Final = """
    Abs AveragePool BatchNormalization Ceil Constant ConvTranspose Dropout Einsum Elu Erf Exp Expand Flatten Floor Gelu
    GlobalAveragePool GlobalMaxPool Greater GroupNormalization HardSigmoid HardSwish InstanceNormalization
    LayerNormalization LeakyRelu Less Log LogSoftmax MatMul Max Min Mish Mul Neg PRelu Pow Range Reciprocal ReduceL2
    ReduceMin ReduceSum Sigmoid Softmax Softplus Split Sqrt Squeeze Tanh Tile TopK Unsqueeze Where
"""
# What `hardroute export` writes, the composed file included, and what other exporters write for convolutional
# networks and transformers. No loops, sequences, strings, randomness or quantisation.
OPERATORS: Final = frozenset(_EXPORTED.split() + _USUAL.split())
_DOMAINS: Final = frozenset({"", "ai.onnx"})  # two names of one domain


def check_onnx(data: bytes, name: str) -> None:
    """Refuses a model that reads other files, holds an operator that is not in `OPERATORS`, or asks for much memory.

    Args:
        data: the file's bytes.
        name: what to call it in the message, such as `expert_0.onnx`.

    Raises:
        BundleError: not an ONNX protobuf, external tensor data, an operator that is unknown, of another domain or
            defined in the file; a constant that makes something huge of something small.
    """
    if data[4:8] == b"ORTM":
        # onnxruntime would take its own flatbuffer format as well, and this walk cannot see into that.
        raise BundleError(f"{name} is in ORT format; export it as ONNX")
    try:
        holds_graph = _walk(memoryview(data), "model", name, 0)
        check_sizes(memoryview(data))
    except SizeError as error:
        raise BundleError(f"{name} {error}; a network of this runtime does not") from None
    except (ValueError, IndexError) as error:
        raise BundleError(f"{name} is not a readable ONNX file ({error}); export the bundle again") from None
    if not holds_graph:
        raise BundleError(f"{name} is not an ONNX file: it holds no graph; export the bundle again")


def _walk(view: memoryview, message: str, name: str, depth: int) -> bool:
    """Visits every field of one message, repeated ones too, since protobuf merges repetitions."""
    if depth > _MAX_DEPTH:
        raise ValueError(f"nested deeper than {_MAX_DEPTH} levels")
    children = _CHILDREN[message]
    holds_graph = False
    for field, wire, value in fields(view):
        if isinstance(value, int):
            if message == "tensor" and field == _TENSOR_DATA_LOCATION and value != 0:
                raise _external(name)
        elif message == "tensor" and field == _TENSOR_EXTERNAL_DATA:
            raise _external(name)
        elif message == "node" and field == _NODE_OP_TYPE and _text(value) not in OPERATORS:
            raise BundleError(f"{name} holds the operator {_text(value)!r}, which this runtime does not take")
        elif message == "node" and field == _NODE_DOMAIN and _text(value) not in _DOMAINS:
            raise BundleError(f"{name} holds an operator of the domain {_text(value)!r}; only ONNX's own are taken")
        elif message == "model" and field == _MODEL_FUNCTION:
            raise BundleError(f"{name} defines operators of its own; export it with functions inlined")
        elif wire == BYTES and field in children:
            _walk(value, children[field], name, depth + 1)
            holds_graph |= children[field] == "graph"
    return holds_graph


def _text(value: memoryview) -> str:
    return bytes(value[:80]).decode(errors="replace")


def _external(name: str) -> BundleError:
    return BundleError(f"{name} keeps tensors in other files; export it with its weights inside the file")
