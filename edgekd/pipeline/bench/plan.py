"""What one call of bench shall measure: graphs, devices, runtimes and ways to run them, every combination."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgekd.devices.address import parse_address
from edgekd.devices.kit import kit_digest
from edgekd.documents.base import nearest
from edgekd.documents.bench import Setting
from edgekd.documents.recipe import Measuring
from edgekd.documents.runtime import RUNTIME_PATTERN, RuntimeName
from edgekd.errors import UsageError
from edgekd.files import sha256_file
from edgekd.pipeline.bench.candidate import Candidate, read_candidate
from edgekd.pipeline.provenance import source_digest

# A bundle's graph has the Q/DQ form that its runtime wants; other runtimes of the same family take it too.
_READS_SIGNED = ("tensorrt", "tensorrt-rtx", "torch-tensorrt")


@dataclass(frozen=True)
class Place:
    """A device that is measured on."""

    address: str
    profile: str | None = None
    """What it is expected to be; None: what each bundle says."""


@dataclass(frozen=True)
class Plan:
    """What is measured, and how."""

    graphs: Mapping[str, Candidate]
    places: tuple[Place, ...] = (Place("local"),)
    runtimes: tuple[RuntimeName, ...] = ()
    """Empty: each graph's own."""
    threads: tuple[int, ...] = (1,)
    batches: tuple[int | None, ...] = (None,)
    """None: each graph's own."""
    measuring: Measuring = field(default_factory=Measuring)
    session_options: Mapping[str, str] = field(default_factory=dict)
    confidence: float = 0.95
    sustained_s: float | None = None
    rate_hz: float | None = None
    rate_s: float = 60.0
    accept_mismatch: bool = False

    def settings(self, place: Place) -> Iterator[Setting]:
        """Every way to run every graph at one place.

        Raises:
            UsageError: a graph has another batch than one that is wanted.
        """
        for name, candidate in self.graphs.items():
            for runtime in self.runtimes or (candidate.runtime,):
                for batch in self.batches:
                    for threads in self.threads:
                        yield Setting(
                            graph=name,
                            device=place.address,
                            runtime=runtime,
                            threads=threads,
                            batch_size=candidate.batch_size(batch),
                        )

    def key(self) -> dict[str, object]:
        """All that the result depends on, for a folder that is gone on with."""
        files = {one.inputs for one in self.graphs.values() if one.inputs is not None}
        return {
            "graphs": {name: [one.sha256, one.profile, one.runtime] for name, one in self.graphs.items()},
            "inputs": sorted(sha256_file(path) for path in files),
            "labels": sorted(sha256_file(one.labels) for one in self.graphs.values() if one.labels),
            "kit": kit_digest(),
            "source": source_digest("measure", "stats.py", "pipeline/bench"),
            "places": [(place.address, place.profile) for place in self.places],
            "measuring": self.measuring.model_dump(mode="json"),
            "options": dict(self.session_options),
            **{
                name: getattr(self, name)
                for name in (
                    *("runtimes", "threads", "batches", "confidence"),
                    *("sustained_s", "rate_hz", "rate_s", "accept_mismatch"),
                )
            },
        }


def parse_place(text: str, profile: str | None) -> Place:
    """`[PROFILE=]ADDRESS`; `profile` is for what names none.

    Raises:
        UsageError: the address is none.
    """
    name, equals, address = text.partition("=")
    if not equals or any(mark in name for mark in ":/?"):  # an equals sign of the address's own options
        name, address = "", text
    parse_address(address)
    return Place(address, name or profile)


def parse_runtime(text: str) -> RuntimeName:
    """A runtime by its name.

    Raises:
        UsageError: there is none of that name.
    """
    if re.fullmatch(RUNTIME_PATTERN, text) is None:
        known = ("onnxruntime", "tensorrt", "tensorrt-rtx", "torch-tensorrt", "openvino", "reference", "null")
        raise UsageError(
            f"there is no runtime '{text}'{nearest(text, known)}",
            hint=f"{', '.join(known)}, or onnxruntime-PROVIDER such as onnxruntime-cuda",
        )
    return text


def parse_places(texts: Sequence[str], profile: str | None) -> tuple[Place, ...]:
    """Places as parse_place reads them; one that is named twice counts once.

    Raises:
        UsageError: an address is none.
    """
    return tuple(dict.fromkeys(parse_place(text, profile) for text in texts))


def read_graphs(paths: Sequence[Path], inputs: Path | None, scratch: Path) -> dict[str, Candidate]:
    """The candidates by names that differ: the file's, with its folder's where two files share one.

    Raises:
        UsageError: a graph is named twice, or its inputs do not fit.
        BundleError: a graph is damaged or unsafe.
    """
    found = [(path, read_candidate(path, inputs, scratch)) for path in paths]
    count = Counter(candidate.name for _, candidate in found)
    named: dict[str, Candidate] = {}
    for path, candidate in found:
        name = candidate.name
        if count[name] > 1:
            folder = path.resolve()
            name = f"{folder.parent.name}/{folder.name}"
        if name in named:
            raise UsageError(f"two graphs are called {name}", where=path, hint="rename one of them")
        named[name] = candidate
    return named


def check_runtime(candidate: Candidate, runtime: RuntimeName) -> None:
    """Check that a bundle's graph means the same to a runtime.

    Raises:
        UsageError: the bundle is for ONNX Runtime, and TensorRT reads its codes in another way.
    """
    if not candidate.bundled or candidate.runtime == "tensorrt":
        return
    if runtime in _READS_SIGNED or runtime == "onnxruntime-tensorrt":
        raise UsageError(
            f"the bundle is for {candidate.runtime}, not for {runtime}, which reads its uint8 codes as int8",
            where=candidate.name,
            hint="take the bundle of the target tensorrt: RUN/bundles/PROFILE/tensorrt",
        )
