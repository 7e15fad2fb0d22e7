"""Where calibrations are kept, for what each of them holds, and the speeds that it tells.

One file a key, in the user's configuration folder. A key is the processor, the runtime with its version, the
number of threads and the kit: where one of them differs there is another file, and no prediction uses this.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from pathlib import Path

from edgekd.devices.kit import kit_digest
from edgekd.devices.matching import mismatches, point_mismatches
from edgekd.documents.calibration import Calibration, CalibrationKey
from edgekd.documents.prediction import NumberType, OperatorClass
from edgekd.documents.profile import Profile
from edgekd.documents.run_log import Facts
from edgekd.errors import DocumentError, MissingError, UsageError
from edgekd.files import sha256_json
from edgekd.measure.prediction.roofline import Speeds


def calibration_folder() -> Path:
    """The folder of calibrations; it need not exist."""
    config = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser()
    return config / "edgekd" / "calibrations"


def key_of(facts: Facts, threads: int, runtime: str = "onnxruntime") -> CalibrationKey:
    """What a calibration of this machine would hold for.

    Raises:
        MissingError: the runtime is not installed there.
    """
    if runtime not in facts.versions:
        raise MissingError(f"{runtime} is not installed there", hint="edgekd doctor")
    return CalibrationKey(
        processor=facts.board or facts.cpu or facts.machine,
        runtime=runtime,
        runtime_version=facts.versions[runtime],
        threads=threads,
        kit_sha256=kit_digest(),
    )


def path_of(key: CalibrationKey) -> Path:
    """The file of a calibration: a name for people, and the digest of its key."""
    name = re.sub(r"[^a-z0-9]+", "-", key.processor.lower()).strip("-")
    digest = sha256_json(key.model_dump(mode="json"))
    return calibration_folder() / f"{name}-{key.runtime_version}-{key.threads}t-{digest[:8]}.json"


def find_calibration(facts: Facts, threads: int, runtime: str = "onnxruntime") -> Calibration | None:
    """The calibration that holds for this machine, runtime, number of threads and kit; None if there is none.

    Raises:
        DocumentError: its file is damaged, or is that of another key.
    """
    if runtime not in facts.versions:
        return None
    key = key_of(facts, threads, runtime)
    path = path_of(key)
    if not path.exists():
        return None
    found = Calibration.read(path)
    if found.key != key:
        hint = "edgekd devices calibrate --force makes it anew"
        raise DocumentError(path, ["key: is not that of this machine and runtime"], hint=hint)
    return found


def calibration_of(profile: Profile, point: str | None, threads: int) -> Calibration | None:
    """The calibration of a machine that is the device of a profile, by this kit; None if there is none.

    `point` is an operating point that was asked for: the machine was at it. The newest version of the runtime
    comes first; files that are damaged are left out here.
    """
    found = [
        one
        for one in map(_read, sorted(calibration_folder().glob("*.json")))
        if one is not None
        and (one.key.threads, one.key.runtime, one.key.kit_sha256) == (threads, "onnxruntime", kit_digest())
        and not mismatches(profile, one.facts)
        and not point_mismatches(profile, point, one.facts)
    ]
    return max(
        found,
        key=lambda one: [int(part) for part in re.findall(r"\d+", one.key.runtime_version)],
        default=None,
    )


def _read(path: Path) -> Calibration | None:
    try:
        return Calibration.read(path)
    except DocumentError:
        return None


def keep(calibration: Calibration, path: Path, *, force: bool) -> None:
    """Write a calibration.

    Raises:
        UsageError: the file exists, and nobody asked to write over it.
    """
    check_free(path, force=force)
    calibration.write(path)


def check_free(path: Path, *, force: bool) -> None:
    """Refuse to write over a calibration unasked.

    Raises:
        UsageError: the file exists.
    """
    if path.exists() and not force:
        raise UsageError("there is a calibration already", where=path, hint="--force measures it anew")


def speeds_of(calibration: Calibration) -> Speeds:
    """What a calibration says that its device does in a second."""
    rates: dict[tuple[OperatorClass, NumberType], dict[float, float]] = defaultdict(dict)
    for one in calibration.rates:
        rates[one.kind, one.number_type][one.width] = one.gops * 1e9
    bandwidth = {one.held_bytes: one.gb_s * 1e9 for one in calibration.bandwidths}
    return Speeds(
        rates={key: tuple(sorted(points.items())) for key, points in rates.items()},
        bandwidth=tuple(sorted(bandwidth.items())),
        move_s=calibration.move_us * 1e-6,
        launches_s={(one.kind, one.number_type): one.launch_us * 1e-6 for one in calibration.launches},
        call_s=calibration.call_us * 1e-6,
    )
