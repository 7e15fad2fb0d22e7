"""`python:package.module:function`: how a document names a function of the user's own, and how it is called.

Whatever a stranger's code raises is his mistake and no bug of edgekd: it becomes one message with the line
that raised it. The original error stays attached as the cause.
"""

from __future__ import annotations

import importlib
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgekd.documents.problems import nearest
from edgekd.errors import EdgekdError

PREFIX = "python:"

Argument = bool | int | float | str
"""What a document can give to a function."""


def call_function(address: str, arguments: Mapping[str, object], *, raises: type[EdgekdError]) -> object:
    """Import the function that `python:package.module:function` names and call it with keyword arguments.

    Raises:
        raises: there is no such module or function, it does not take these arguments, or it raised an error.
    """
    function = _find(address, raises)
    _check_arguments(function, address, arguments, raises)
    with foreign_code(address, raises):
        return function(**arguments)


def source_files(address: str, *, raises: type[EdgekdError]) -> list[Path]:
    """The Python files that a function is written in: its module, or every one of its top package."""
    module_name = address.removeprefix(PREFIX).partition(":")[0]
    with foreign_code(address, raises):
        _import(module_name, address, raises)
    top = sys.modules[module_name.partition(".")[0]]
    folders = [Path(folder) for folder in getattr(top, "__path__", ())]
    if folders:
        return sorted(path for folder in folders for path in folder.rglob("*.py"))
    return [Path(top.__file__)] if top.__file__ else []


@contextmanager
def foreign_code(where: str, raises: type[EdgekdError]) -> Iterator[None]:
    """Turn what code that is not edgekd's raises into the error family `raises`."""
    try:
        yield
    except EdgekdError:
        raise
    except (Exception, SystemExit) as error:  # somebody else's code may raise anything, or end the process
        raise raises(f"{type(error).__name__}: {error}{_line_of(error)}", where=where) from error


def _find(address: str, raises: type[EdgekdError]) -> Callable[..., object]:
    module_name, _, name = address.removeprefix(PREFIX).partition(":")
    if not module_name or not name:
        raise raises("names no function", where=address, hint="write python:package.module:function")
    with foreign_code(address, raises):
        module = _import(module_name, address, raises)
    function: Any = getattr(module, name, None)
    if function is None:
        known = [key for key, value in vars(module).items() if callable(value)]
        raise raises(f"module '{module_name}' has no '{name}'{nearest(name, known)}", where=address)
    if not callable(function):
        raise raises(f"'{name}' is no function but a {type(function).__name__}", where=address)
    return function  # type: ignore[no-any-return]


def _import(module_name: str, address: str, raises: type[EdgekdError]) -> object:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the module is there; what it imports is not
        hint = "install it, or start edgekd in the folder that holds it"
        raise raises(f"there is no module '{error.name}'", where=address, hint=hint) from None


def _check_arguments(
    function: Callable[..., object], address: str, arguments: Mapping[str, object], raises: type[EdgekdError]
) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # some built-in callables do not tell
    try:
        signature.bind(**arguments)
    except TypeError as error:
        hint = f"it is called with {', '.join(f'{name}=' for name in arguments)}"
        raise raises(f"does not take these arguments: {error}", where=address, hint=hint) from None


def _line_of(error: BaseException) -> str:
    """` (file.py:12)`: the innermost line that belongs neither to edgekd nor to an installed package."""
    frames = traceback.extract_tb(error.__traceback__)
    here = str(Path(__file__).parents[1])
    own = [
        frame
        for frame in frames
        if not frame.filename.startswith((here, "<")) and "site-packages" not in frame.filename
    ]
    return f" ({Path(own[-1].filename).name}:{own[-1].lineno})" if own else ""
