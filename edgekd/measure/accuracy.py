"""Top-1 of a graph on the runtime that runs it on the device."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.devices.device import Device
from edgekd.documents.common import Interval
from edgekd.documents.job import Job, JobGraph
from edgekd.documents.measurement import Accuracy
from edgekd.documents.runtime import RuntimeName
from edgekd.errors import DataError, DeviceError, MeasurementError
from edgekd.files import sha256_file
from edgekd.stats import wilson_interval

OUTPUTS_TIMEOUT_S = 1800.0


def measure_outputs(
    device: Device,
    graph: Path,
    inputs: Path,
    *,
    runtime: RuntimeName,
    threads: int,
    batch_size: int = 64,
    session_options: Mapping[str, str] | None = None,
    timeout_s: float = OUTPUTS_TIMEOUT_S,
) -> npt.NDArray[np.float32]:
    """Logits (N, K) of a graph for the N examples of a .npy, computed by the runtime on the device.

    Raises:
        DeviceError: the file of logits is missing or is not the one that the kit wrote.
        MeasurementError: the logits are no (N, K) of finite numbers; and what Device.run raises.
    """
    with tempfile.TemporaryDirectory(prefix="edgekd-logits-") as name:
        outputs = Path(name) / "logits.npy"
        job = Job(
            mode="outputs",
            runtime=runtime,
            graphs=(JobGraph(name=graph.name, path=str(graph)),),
            inputs=str(inputs),
            outputs=str(outputs),
            batch_size=batch_size,
            threads=threads,
            session_options=dict(session_options or {}),
        )
        log = device.run(job, timeout_s=timeout_s)
        if not outputs.exists() or sha256_file(outputs) != log.outputs_sha256:
            why = "the logits that came back are not those that the kit wrote"
            raise DeviceError(why, where=graph, hint="run it again")
        logits_NK = np.load(outputs, allow_pickle=False)
    return _checked(logits_NK, len(np.load(inputs, mmap_mode="r", allow_pickle=False)), graph)


def _checked(logits_NK: npt.NDArray[Any], count: int, graph: Path) -> npt.NDArray[np.float32]:
    if logits_NK.ndim != 2 or logits_NK.shape[0] != count:
        message = (
            f"the graph's first output is {logits_NK.shape}, not one row of logits for each of {count} inputs"
        )
        raise MeasurementError(message, where=graph)
    bad = int(np.sum(~np.isfinite(logits_NK).all(axis=1)))
    if bad:
        raise MeasurementError(
            f"the logits of {bad} of {count} inputs are not finite",
            where=graph,
            hint="look for an overflow: a scale of zero, or float16 where float32 is needed",
        )
    return logits_NK.astype(np.float32, copy=False)


def accuracy(logits_NK: npt.NDArray[Any], labels_N: npt.NDArray[Any], confidence: float) -> Accuracy:
    """Top-1 with Wilson's interval; each end holds with `confidence`, so that it is two-sided 2 c - 1.

    Raises:
        DataError: there are no labels, as many as logits, or one is no class of the logits.
    """
    count, classes = logits_NK.shape
    if labels_N.shape != (count,) or count == 0:
        raise DataError(f"{count} rows of logits, labels of shape {labels_N.shape}", where="labels")
    if labels_N.min() < 0 or labels_N.max() >= classes:
        raise DataError(
            f"labels from {labels_N.min()} to {labels_N.max()}, logits of {classes} classes", where="labels"
        )
    correct = int(np.sum(logits_NK.argmax(axis=1) == labels_N))
    lower, upper = wilson_interval(correct, count, confidence)
    interval = Interval(lower=lower, upper=upper, confidence=round(2 * confidence - 1, 12))
    return Accuracy(top1=correct / count, correct=correct, count=count, interval=interval)
