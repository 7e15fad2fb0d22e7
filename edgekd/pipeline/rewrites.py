"""Decide by measurement in which form a student's operations are written. Needs torch.

Greedy: from the defaults, each rewrite that would change this network is switched once, with all others as
decided so far, and both graphs are measured side by side. The default stays unless the other form is faster
beyond noise: a network is not written in another form tomorrow because a neighbor was busy today. Rewrites
that change what the network computes are never switched here, nor are those that the scheme names.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from torch import Tensor, nn

from edgekd.conversion.dialects import to_dialect, write_graph
from edgekd.conversion.specs import spec_of
from edgekd.conversion.to_onnx import export_int8
from edgekd.devices.device import Device
from edgekd.documents.common import InputSpec, Interval
from edgekd.documents.measurement import Ratio
from edgekd.documents.recipe import Measuring
from edgekd.documents.rewrites import REWRITES, MeasuredRewrite, RewriteDecisions, resolve
from edgekd.documents.scheme import Scheme
from edgekd.documents.spec import Int8Dialect
from edgekd.measure.latency import measure_latency
from edgekd.quantization.calibrate import calibrate
from edgekd.quantization.operations import annotate
from edgekd.quantization.prepare import fold_network, prepare
from edgekd.quantization.rewrites import applicable

QUICK = Measuring(processes=3, warmup_s=0.1, max_warmup_s=0.5, min_time_s=0.3)
"""A few seconds for two graphs."""
_CONFIDENCE = 0.95


def decide_rewrites(
    network: nn.Module,
    examples: Tensor,
    input: InputSpec,
    *,
    device: Device,
    scheme: Scheme | None = None,
    dialect: Int8Dialect = "onnxruntime-u8",
    measuring: Measuring = QUICK,
) -> RewriteDecisions:
    """Measure every rewrite that applies, on ONNX Runtime.

    Args:
        network: the fp32 student, in evaluation; left as it is.
        examples: a batch (B, ...) to calibrate on, normalized, on the network's device.
        input: name and shape of the graph's input.
        device: where to measure.
        scheme: how the student is quantized; a rewrite that it names is not measured.
        dialect: the form of the graph that ships.
        measuring: how long to measure each pair of graphs.

    Returns:
        What was measured; nothing is exported and no time is spent where no rewrite applies.

    Raises:
        NetworkError, ConversionError: the network cannot be quantized or exported.
        MeasurementError, DeviceError: the measurement failed.
    """
    scheme = scheme or Scheme()
    names = measurable(network, examples, scheme)
    found: list[MeasuredRewrite] = []
    if names:
        with tempfile.TemporaryDirectory(prefix="edgekd-rewrites-") as folder:
            forms = _Forms(network, examples, input, scheme, dialect, Path(folder))
            for name in names:
                choices = RewriteDecisions(measured=tuple(found)).choices
                found.append(_decide(forms, name, choices, device, measuring))
    return RewriteDecisions(measured=tuple(found))


def measurable(network: nn.Module, examples: Tensor, scheme: Scheme) -> tuple[str, ...]:
    """Names of the rewrites that apply to a network and may be decided by measurement."""
    graph = fold_network(network, examples)
    annotate(graph, examples)
    return tuple(
        name for name in applicable(graph) if REWRITES[name].measured and name not in scheme.rewrites
    )


class _Forms:
    """The graphs of a network under different choices, each exported once."""

    def __init__(
        self,
        network: nn.Module,
        examples: Tensor,
        input: InputSpec,
        scheme: Scheme,
        dialect: Int8Dialect,
        folder: Path,
    ) -> None:
        self._network, self._examples, self._input = network, examples, input
        self._scheme, self._dialect, self._folder = scheme, dialect, folder
        self._canonical: dict[tuple[bool, ...], Path] = {}
        self.inputs = folder / "inputs.npy"
        np.save(self.inputs, examples.cpu().numpy())

    def graph(self, name: str, choices: Mapping[str, bool]) -> Path:
        """The file NAME.onnx with the graph under the scheme's choices and these."""
        wanted = {**self._scheme.rewrites, **choices}
        path = self._folder / f"{name}.onnx"
        write_graph(to_dialect(onnx.load(self._canonical_graph(wanted)), self._dialect, wanted), path)
        return path

    def _canonical_graph(self, wanted: Mapping[str, bool]) -> Path:
        key = tuple(on for name, on in resolve(wanted).items() if not REWRITES[name].of_graph)
        if key not in self._canonical:
            path = self._folder / f"canonical-{len(self._canonical)}.onnx"
            scheme = self._scheme.model_copy(update={"rewrites": dict(wanted)})
            quantized = prepare(self._network, self._examples, scheme).eval()
            calibrate(quantized, [self._examples])
            quantized.set_fake_quantizing(True)
            export_int8(quantized, self._input, path, opset=spec_of("tensorrt-s8").opset)
            self._canonical[key] = path
        return self._canonical[key]


def _decide(
    forms: _Forms, name: str, choices: Mapping[str, bool], device: Device, measuring: Measuring
) -> MeasuredRewrite:
    ratio = _measure(forms, name, choices, device, measuring)
    on = pays(ratio.interval, default=REWRITES[name].default)
    return MeasuredRewrite(name=name, on=on, ratio=ratio.value, interval=ratio.interval)


def pays(interval: Interval, *, default: bool) -> bool:
    """Whether a form is used, from the interval of its latency over that of the other form."""
    return interval.lower <= 1 if default else interval.upper < 1


def _measure(
    forms: _Forms, name: str, choices: Mapping[str, bool], device: Device, measuring: Measuring
) -> Ratio:
    """Latency with a rewrite over that without it."""
    graphs = {on: forms.graph(on, {**choices, name: on == "with"}) for on in ("with", "without")}
    result = measure_latency(
        device,
        graphs,
        runtime="onnxruntime",
        inputs=forms.inputs,
        measuring=measuring,
        confidence=_CONFIDENCE,
        reference="without",
        cold_starts=0,
    )
    return result.ratios[0]
