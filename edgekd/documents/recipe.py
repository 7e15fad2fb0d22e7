"""The recipe: one TOML file that says what to distil, how, for which devices, and what must hold."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from edgekd.documents.base import Document, Section
from edgekd.documents.function import Argument as Argument
from edgekd.documents.numbers import Fraction, NotNegative, Positive
from edgekd.documents.quantization import Quantization as Quantization
from edgekd.documents.quantization import QuantizedTraining as QuantizedTraining
from edgekd.documents.runtime import TargetRuntime
from edgekd.documents.teacher import Teacher as Teacher
from edgekd.documents.terms import ExitsTerm, KDTerm, Term
from edgekd.documents.training import Devices as Devices
from edgekd.documents.training import Training as Training


class Augmentation(Section):
    """Random changes of a training batch; the defaults change nothing."""

    crop: Annotated[int, Field(ge=0)] = 0
    """Pixels of zero padding on each side before a random crop back to the original size."""
    flip: bool = False
    """Mirror half of the images left to right."""
    rotate_degrees: Annotated[float, Field(ge=0, le=180)] = 0.0
    """Rotate by a uniform angle of at most this many degrees either way."""
    noise: NotNegative = 0.0
    """Standard deviation of Gaussian noise, in units of the normalized input."""


class _TaskSection(Section):
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Part of the training set held out, stratified by class, to choose epochs and calibrators."""
    augmentation: Augmentation = Augmentation()
    """Random changes of each training batch."""


class DigitsTask(_TaskSection):
    """scikit-learn's bundled 8x8 handwritten digits: 1,797 real images, no download."""

    tag: ClassVar[str] = "digits"
    name: Literal["digits"] = "digits"
    """The task."""
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.3
    """Part of the images kept for the test, stratified by class."""


class NpzTask(_TaskSection):
    """Two .npz files with arrays `x` and `y`."""

    tag: ClassVar[str] = "npz"
    name: Literal["npz"]
    """The task."""
    train: Path
    """Training file; a relative path is taken from the recipe's folder."""
    test: Path
    """Test file, never seen in training or in choosing."""
    layout: Annotated[str, Field(pattern=r"^N[A-Z]{1,4}$")] = "NHWC"
    """The axes of x: N, then C (channels) and any of H, W, D, L; without a C one channel is added."""
    unlabeled: Path | None = None
    """A file with an array `x` alone: examples without labels, which the student learns from as well."""
    class_names: tuple[str, ...] | None = None
    """Names of the classes, in the order of their labels; the labels' numbers when not given."""


class PythonTask(_TaskSection):
    """A task of your own: `python:package.module:function`."""

    tag: ClassVar[str] = "python"
    name: Annotated[str, Field(pattern=r"^python:[\w.]+:\w+$")]
    """The function that returns an edgekd.tasks.task.Task."""
    args: dict[str, Argument] = {}
    """Keyword arguments of the function."""


def _task_tag(value: Any) -> str:
    name = value.get("name", "digits") if isinstance(value, dict) else getattr(value, "name", "digits")
    return "python" if isinstance(name, str) and name.startswith("python:") else str(name)


TaskSection = Annotated[
    Annotated[DigitsTask, Tag("digits")]
    | Annotated[NpzTask, Tag("npz")]
    | Annotated[PythonTask, Tag("python")],
    Discriminator(
        _task_tag,
        custom_error_type="tag",
        custom_error_message="no task has this name",
        custom_error_context={
            "key": "name",
            "expected": "'digits', 'npz' or 'python:package.module:function'",
        },
    ),
]


class Student(Section):
    """The network that ships."""

    network: str = "resnet8"
    """A built-in network, `timm:NAME`, or `python:package.module:function`."""
    args: dict[str, Argument] = {}
    """Keyword arguments of the network."""
    weights: Path | None = None
    """Weights to start from; random when not given."""
    training: Training = Training()
    """How to distil it."""
    exit: str | None = None
    """Ship the network up to this tap, with the exit there that a term of the kind `exits` trained; the whole
    network when not given."""


class Distillation(Section):
    """The objective of the student: labels plus the terms."""

    label_weight: NotNegative = 0.1
    """Factor of the cross-entropy with the labels."""
    terms: tuple[Term, ...] = (KDTerm(),)
    """What is asked of the student beside the labels."""
    data_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Part of the training set, chosen by the seed and stratified by class, that the student learns from;
    the teacher learns from all of it."""

    @model_validator(mode="after")
    def _something_to_learn(self) -> Distillation:
        if self.label_weight == 0 and not any(term.weight for term in self.terms):
            raise ValueError("every weight is zero: nothing would be learned")
        return self

    @property
    def needs_teacher(self) -> bool:
        """Whether a term that has a weight reads the recipe's teacher."""
        return any(term.weight and term.needs_teacher for term in self.terms)


class Target(Section):
    """One device and the runtime on it."""

    profile: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*(@[A-Za-z0-9][A-Za-z0-9_.-]*)?$")] = "local"
    """A device profile (edgekd devices list), or `local`: the machine at hand, as it is."""
    runtime: TargetRuntime = "onnxruntime"
    """The runtime that will run the student there."""
    precision: Literal["int8", "fp16", "fp8"] = "int8"
    """Type of the graph: int8, as it was quantized; fp16, the fp32 student in half precision; or fp8,
    calibrated, for TensorRT on GPUs of SM 89 and later."""
    measure: bool = True
    """Measure here; false exports and proves the graph and leaves the measuring to the device."""
    accept_mismatch: bool = False
    """Let a measurement count although the device at hand is not the profile's."""

    @model_validator(mode="after")
    def _fp8_is_tensorrts(self) -> Target:
        if self.precision == "fp8" and self.runtime != "tensorrt":
            raise ValueError("precision = 'fp8' is for the runtime tensorrt")
        return self

    @property
    def name(self) -> str:
        """`PROFILE/RUNTIME`."""
        return f"{self.profile}/{self.runtime}"


class Gate(Section):
    """What must hold. A check without a default is made only where it is given; parity is always checked."""

    latency_p50_ms: Positive | None = None
    """Budget for the median latency, judged on its upper confidence bound."""
    latency_p90_ms: Positive | None = None
    """Budget for the 90th percentile, judged on its upper confidence bound."""
    latency_p50_ratio: Positive | None = None
    """Budget for int8 p50 over the fp32 student's p50, measured side by side."""
    size_bytes: Annotated[int, Field(gt=0)] | None = None
    """Budget for the graph's size."""
    size_ratio: Positive | None = None
    """Budget for the graph's size over that of the fp32 student."""
    top1_min: Fraction | None = None
    """Least top-1 on the runtime, judged on its lower confidence bound."""
    top1_drop_pt: Positive | None = 1.0
    """Margin, in percentage points, of the paired non-inferiority test against the fp32 student."""
    int8_share: Fraction | None = 1.0
    """Least share of weighted operators that really run in int8."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """One-sided confidence of every bound."""


class Measuring(Section):
    """How latency is measured."""

    processes: Annotated[int, Field(ge=2)] = 5
    """Fresh processes; inside each, the graphs that are compared take turns."""
    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    """Threads of the runtime."""
    warmup_s: Positive = 0.3
    """Least warm-up of each graph in each process, ended by convergence."""
    max_warmup_s: Positive = 2.0
    """Most warm-up of each graph in each process, converged or not."""
    min_time_s: Positive = 0.5
    """Least measured time of each graph in each process."""
    min_samples: Annotated[int, Field(ge=20)] = 200
    """Least samples of each graph in each process."""


class Recipe(Document):
    """What to distil, how, for which devices, and what must hold at the end."""

    title: ClassVar[str] = "recipe"

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    """Name of the run in reports and manifests."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seed of the split, the initial weights, the order and the augmentation."""
    task: TaskSection = DigitsTask()
    """The data and what is asked of it."""
    teacher: Teacher = Teacher()
    """The network that teaches."""
    student: Student = Student()
    """The network that ships."""
    distillation: Distillation = Distillation()
    """The objective of the student."""
    quantization: Quantization = Quantization()
    """How the student becomes int8."""
    targets: Annotated[tuple[Target, ...], Field(min_length=1)] = (Target(),)
    """The devices that the student is for."""
    measuring: Measuring = Measuring()
    """How latency is measured."""
    gate: Gate = Gate()
    """What must hold."""

    @field_validator("targets")
    @classmethod
    def _distinct(cls, targets: tuple[Target, ...]) -> tuple[Target, ...]:
        pairs = [(target.profile, target.runtime) for target in targets]
        for pair in pairs:
            if pairs.count(pair) > 1:
                raise ValueError(f"two targets are {pair[0]} with {pair[1]}")
        return targets

    @model_validator(mode="after")
    def _exit_is_trained(self) -> Recipe:
        terms = [term for term in self.distillation.terms if isinstance(term, ExitsTerm) and term.weight]
        if self.student.exit is None:
            return self
        if not terms:
            raise ValueError(
                f"student.exit = '{self.student.exit}' needs a term of the kind 'exits', which trains it"
            )
        taps = terms[0].student_taps
        if taps and self.student.exit not in taps:
            raise ValueError(
                f"student.exit = '{self.student.exit}' is none of the trained exits: {', '.join(taps)}"
            )
        return self
