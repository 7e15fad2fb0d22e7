"""A term of the user's own: `python:package.module:function`, which returns a Term."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from edgekd.distillation.setting import Setting
from edgekd.distillation.step import Step
from edgekd.distillation.term import Survey, Term
from edgekd.documents.function import call_function, foreign_code
from edgekd.documents.terms.python_term import PythonTerm
from edgekd.errors import UsageError

_NAMES = ("sources", "views", "student_taps", "source_taps", "memory")
_SCALARS = {"smallest_batch": int, "warmup_epochs": int, "reads_labels": bool}
_WANTED = "a tensor with one number is wanted, the mean over the examples"


class OwnTerm(Term):
    """A user's term, whose errors become messages and whose value is checked.

    It is no part of a fine-tuning with fake quantization, as nothing is known of what it reads there.
    """

    def __init__(self, section: PythonTerm, setting: Setting) -> None:
        """Call the function with setting= and the section's args.

        Raises:
            UsageError: no such module or function, wrong arguments, an error in it, or no usable Term
                returned.
        """
        super().__init__()
        self.address = section.kind
        self.inner = _made(section, setting)
        self.sources, self.views = tuple(self.inner.sources), tuple(self.inner.views)
        self.student_taps, self.source_taps = tuple(self.inner.student_taps), tuple(self.inner.source_taps)
        self.smallest_batch, self.warmup_epochs = self.inner.smallest_batch, self.inner.warmup_epochs
        self.reads_labels = self.inner.reads_labels
        self.memory = tuple(f"inner.{name}" for name in self.inner.memory)

    def prepare(self, survey: Survey) -> None:
        """Let it look."""
        with foreign_code(self.address, UsageError):
            self.inner.prepare(survey)

    def forward(self, step: Step) -> Tensor:
        """Its value.

        Raises:
            UsageError: an error in it, or its value is no scalar.
        """
        with foreign_code(self.address, UsageError):
            value: object = self.inner(step)
        if not isinstance(value, Tensor):
            raise UsageError(f"gives a {type(value).__name__}; {_WANTED}", where=self.address)
        if value.shape != () or not value.is_floating_point():
            found = f"{value.dtype} of shape {tuple(value.shape)}"
            raise UsageError(f"gives {found}; {_WANTED}", where=self.address)
        return value


def _made(section: PythonTerm, setting: Setting) -> Term:
    if "setting" in section.args:
        raise UsageError("args.setting is set by edgekd; leave it out", where=section.kind)
    term = call_function(section.kind, {"setting": setting, **section.args}, raises=UsageError)
    if not isinstance(term, Term):
        raise UsageError(
            f"returns a {type(term).__name__}; an edgekd.distillation.term.Term is wanted", where=section.kind
        )
    for problem in _problems(term):
        raise UsageError(problem, where=section.kind)
    return term


def _problems(term: Term) -> Iterator[str]:
    """What a term says of itself in another form than terms do."""
    for name in _NAMES:
        value = getattr(term, name)
        if not isinstance(value, tuple | list) or not all(isinstance(one, str) for one in value):
            yield f"{name} is {value!r}; a tuple of names is wanted"
    for name, kind in _SCALARS.items():
        if type(getattr(term, name)) is not kind:
            yield f"{name} is {getattr(term, name)!r}; {kind.__name__} is wanted"
