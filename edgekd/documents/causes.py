"""Every cause that an audit can name: its stable id, what it means, and what to do about it.

The ids stand in text, JSON and SARIF, and in other people's lists of what they accept: an id is never given
another meaning. What an audit says of one operator is more exact than the lines here, and names tensors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["error", "warning", "note"]
_ORT, _TRT = ("onnxruntime",), ("tensorrt",)


@dataclass(frozen=True)
class Cause:
    """One reason for which a graph is slower than it could be, or computes something else.

    Attributes:
        id: stable name in kebab case.
        title: the reason as the end of a sentence: "12 convolutions run in float because ...".
        advice: what to change.
        level: error where the runtime computes something else than the graph says, warning where a change of
            the graph helps, note where it costs and there may be nothing to change.
        runtimes: where it is asked.
    """

    id: str
    title: str
    advice: str
    level: Level = "warning"
    runtimes: tuple[str, ...] = _ORT


_TABLE = (
    # The graph as a whole.
    Cause(
        "graph-not-quantized",
        "the graph is not quantized",
        "quantize it: edgekd compress writes int8 graphs",
        runtimes=_ORT + _TRT,
    ),
    Cause(
        "not-loaded",
        "the runtime cannot load the graph",
        "see the runtime's message; the rest of the audit is read from the file alone",
        "error",
        _ORT + _TRT,
    ),
    Cause("removed", "the runtime removed it: the result is constant or not used", "nothing to do", "note"),
    # The operator and its weight.
    Cause(
        "no-int8-kernel",
        "the runtime has no int8 kernel for this operator",
        "use an operator that has one, or leave it in float on purpose",
        runtimes=_ORT + _TRT,
    ),
    Cause(
        "half-precision-scales",
        "scales in half precision have no int8 kernel",
        "write the graph with float32 scales",
    ),
    Cause(
        "weight-not-constant",
        "the weight is not a constant",
        "write the weight as an initializer that is no input of the graph",
        runtimes=_ORT + _TRT,
    ),
    Cause(
        "weight-not-quantized",
        "the weight is not quantized",
        "write the weight in int8 with a DequantizeLinear after it",
        runtimes=_ORT + _TRT,
    ),
    Cause(
        "weight-only",
        "only the weight is quantized: its codes are opened to compute in float",
        "quantize the input too; where only the size matters, leave it",
        "note",
        _ORT + _TRT,
    ),
    Cause("weight-type", "the weight is of a type that has no kernel", "quantize the weight to int8"),
    Cause(
        "weight-axis",
        "the scales of the weight lie on the wrong axis",
        "one scale for each output channel: axis 0 for Conv and a transposed Gemm, the last for MatMul",
        "error",
        _ORT + _TRT,
    ),
    Cause(
        "asymmetric-weights",
        "the weight has zero points other than the middle of its type",
        "quantize weights symmetrically: zero point 0 for int8, 128 for uint8",
        runtimes=_ORT + _TRT,
    ),
    Cause(
        "bias-not-constant",
        "the bias is computed, so that the runtime cannot quantize it",
        "write the bias as an initializer",
    ),
    Cause(
        "bias-type",
        "the bias is quantized to another type than int32",
        "leave the bias in float, or int32 at the scale of input times weight",
    ),
    Cause(
        "bias-scale",
        "the int32 bias has another scale than that of input times weight",
        "leave the bias in float, or write it at the scale of input times weight",
    ),
    Cause(
        "gemm-bias",
        "the output is float and the bias is not quantized",
        "use the dialect onnxruntime-u8: an int32 bias at the scale of input times weight",
    ),
    Cause("gemm-factor", "there is a factor alpha or beta", "multiply the factor into the weight and bias"),
    # What it reads.
    Cause(
        "input-not-quantized",
        "the input is not quantized",
        "quantize the tensor that is read",
        runtimes=_ORT + _TRT,
    ),
    Cause(
        "layout-before-operator",
        "the input is moved after it was dequantized",
        "repeat QuantizeLinear and DequantizeLinear after the operator that moves it",
    ),
    Cause("activation-type", "the input is not quantized to 8 bits", "quantize the input to uint8"),
    Cause(
        "activation-per-channel",
        "an activation has a scale for each channel",
        "one scale for an activation: per tensor",
        runtimes=_ORT + _TRT,
    ),
    Cause(
        "scale-not-constant",
        "a scale is computed while the graph runs",
        "write scales and zero points as initializers, or Constant nodes",
        runtimes=_ORT + _TRT,
    ),
    Cause(
        "signed-codes",
        "int8 codes that cannot be moved to uint8 have no kernel on this processor",
        "use the dialect onnxruntime-u8: uint8 activations",
    ),
    Cause(
        "mixed-types",
        "input and output are quantized to different types",
        "quantize both to the same type",
    ),
    # What reads it.
    Cause(
        "dedicated-quantizers",
        "the output has a quantizer for each reader",
        "let the readers share one QuantizeLinear",
    ),
    Cause(
        "batch-norm-not-folded",
        "a BatchNormalization follows that was not folded",
        "fold it into the weight before quantizing",
        runtimes=_ORT + _TRT,
    ),
    Cause(
        "relu-zero-point",
        "the Relu that follows is quantized to codes that do not start at zero",
        "use the dialect onnxruntime-u8: uint8 with zero point 0 after a Relu",
    ),
    Cause(
        "clip-range",
        "the Clip that follows is narrower than its quantizer",
        "use ReLU in its place, or scales whose range does not exceed the Clip's",
    ),
    Cause(
        "activation-not-folded",
        "the activation that follows does not fold",
        "use ReLU, or quantize before and after the activation",
    ),
    Cause(
        "add-not-quantized",
        "the output is added or multiplied without a quantizer",
        "quantize both inputs and the output of the Add or Mul",
    ),
    Cause(
        "reduce-mean",
        "the output goes into a ReduceMean, which has no int8 kernel",
        "use GlobalAveragePool, which has one, and quantize before it",
    ),
    Cause("float-reader", "the output is read in float", "quantize what the readers read"),
    Cause("float-output", "the output leaves the graph in float", "quantize the output"),
    Cause("not-fused", "the runtime did not fuse it, for a reason that edgekd does not know", "", "note"),
    # In int8, and slower than it could be.
    Cause(
        "depthwise",
        "it is depthwise, and the int8 kernel is slower than the float kernel here",
        "nothing in the graph; fewer depthwise layers, or another network, where it dominates",
        "note",
        _ORT + _TRT,
    ),
    Cause(
        "grouped",
        "it has groups of few channels, and the int8 kernel is slower than the float kernel here",
        "fewer or wider groups, or keep it in float where it dominates",
        "note",
    ),
    Cause(
        "slower-in-int8",
        "the int8 kernel is slower than the float kernel here",
        "keep it in float where it dominates, and measure: quantizers around it cost time too",
        "note",
    ),
    Cause(
        "signed-activations",
        "int8 activations have no fast kernel on this processor",
        "quantize activations to uint8, or write the graph with QuantizeLinear and DequantizeLinear",
    ),
    Cause(
        "unsigned-weights",
        "weights in uint8 have slower kernels than in int8 on a processor with VNNI",
        "quantize weights to int8; uint8 is for x86 processors without VNNI",
    ),
    Cause(
        "dynamic-quantization",
        "the input is quantized anew at each run",
        "calibrate, and write QuantizeLinear with constant scales",
        "note",
    ),
    # Operators without weights between those in int8.
    Cause(
        "float-island",
        "operators between those in int8 run in float",
        "use operators that have int8 kernels, or quantize around them",
        "note",
        _ORT + _TRT,
    ),
    Cause(
        "activation-in-float",
        "an activation function runs in float",
        "use ReLU, or SiLU written as Sigmoid and Mul with quantizers around both, which have int8 kernels",
    ),
    Cause(
        "reduce-mean-in-float",
        "a ReduceMean runs in float: it has no int8 kernel",
        "use GlobalAveragePool where it averages the whole map",
    ),
    Cause(
        "add-in-float",
        "an Add or Mul runs in float",
        "quantize both inputs and the output, all to one type",
    ),
    Cause(
        "concat-in-float", "a Concat runs in float", "quantize every input and the output, all to one type"
    ),
    Cause("pool-in-float", "a pooling runs in float", "quantize input and output; MaxPool from opset 12 on"),
    Cause(
        "pad-in-float",
        "a Pad runs in float",
        "write the padding as the attribute pads of the Conv, without quantizers in between",
    ),
    Cause(
        "norm-in-float",
        "a normalization or Softmax runs in float",
        "nothing where accuracy needs it; batch norm can be folded",
        "note",
    ),
    Cause(
        "quantizers-left",
        "quantizers stand alone: no kernel took them in",
        "see the causes of the operators around them",
    ),
    Cause(
        "layout-conversion",
        "the runtime moves tensors between layouts",
        "fewer changes between operators in int8 and in float",
        "note",
        _ORT,
    ),
    Cause("cast", "tensors are cast from type to type", "write the graph in one float type", "note"),
    # TensorRT's parsed network.
    Cause(
        "fp8-codes",
        "it is quantized to fp8, not to int8",
        "nothing on a GPU that computes in fp8; else the dialect tensorrt-s8",
        "note",
        _TRT,
    ),
    Cause(
        "zero-point",
        "a zero point is not 0",
        "use the dialect tensorrt-s8: int8 with zero point 0",
        "error",
        _TRT,
    ),
    Cause(
        "unsigned-codes",
        "the codes are uint8, which TensorRT reads as int8 and so clips at half of their range",
        "use the dialect tensorrt-s8: int8 with zero point 0",
        "error",
        _TRT,
    ),
    Cause(
        "int32-bias", "the bias is int32, which TensorRT refuses", "leave the bias in float", "error", _TRT
    ),
    Cause(
        "parser-refused",
        "TensorRT's parser refuses the graph here",
        "replace the operator that the message names",
        "error",
        _TRT,
    ),
    Cause(
        "quantizer-before-activation",
        "a quantizer stands before the activation too",
        "quantize after the activation alone, so that both become one kernel",
        runtimes=_TRT,
    ),
    Cause(
        "skip-not-quantized",
        "the other input of the Add that follows is float, so that the result is too",
        "quantize the skip connection",
        runtimes=_TRT,
    ),
    Cause(
        "quantizer-before-add",
        "a quantizer stands before the Add, which becomes a kernel of its own",
        "leave the quantizer out on this side of the Add, and keep it on the skip connection",
        "note",
        _TRT,
    ),
    Cause(
        "concat-scales",
        "the inputs of a Concat have different scales, so that each is rescaled",
        "give the inputs of the Concat one scale",
        runtimes=_TRT,
    ),
    Cause(
        "float-result",
        "the result is written in float",
        "quantize the output, where what follows runs in int8",
        "note",
        _TRT,
    ),
)
CAUSES: dict[str, Cause] = {cause.id: cause for cause in _TABLE}
"""Cause by id, in the order in which they are listed."""
