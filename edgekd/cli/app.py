"""The command `edgekd`: its commands, its global options, and the one place where errors become text.

A command is a module of this package with an `app`; it is imported when it is called, so that `edgekd --help`
stays quick and a broken package breaks no other command. To add one, write the module and a line of COMMANDS.
"""

from __future__ import annotations

import errno
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from edgekd import __version__
from edgekd.cli import screen
from edgekd.errors import EdgekdError, StorageError

COMMANDS = {
    "init": "Write a commented recipe to start from.",
    "compress": "From a recipe to a verdict, in one command.",
    "distill": "Train the teacher and distil the student, in floating point.",
    "quantize": "Calibrate the student and fine-tune it, quantized.",
    "export": "Export every graph, prove it, and write the bundles.",
    "bench": "Measure the latency of a graph, a bundle or a run.",
    "gate": "Judge a finished run again.",
    "predict": "Estimate the latency of graphs, from profiles of devices.",
    "audit": "Say which operators of a graph really run in int8.",
    "sensitivity": "Find the layers that cannot be quantized, and spare them.",
    "debug": "Find the layer where a graph parts from what was trained.",
    "compare": "Train one student by several methods, side by side.",
    "methods": "List and show the distillation methods of the literature.",
    "devices": "List device profiles, recognize a machine, tidy up a board.",
    "schema": "Print the JSON Schema of a kind of document.",
    "doctor": "Say what this machine can do, and what is missing.",
}
"""Name of the command, which is also the name of its module, and its line in the help."""

INTERRUPTED, PIPE_BROKEN = 130, 141
"""128 + SIGINT and 128 + SIGPIPE, as shells have it."""


class Commands(TyperGroup):
    """The group of all commands: it lists COMMANDS, and imports the module of the one that is called."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, line in COMMANDS.items():
            self.add_command(TyperCommand(name, help=line), name)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """The command that is called, with its own options; typer asks here to run it and to complete it."""
        name, listed, rest = super().resolve_command(ctx, args)
        if name is None or listed is None:
            return name, listed, rest
        return name, typer.main.get_command(import_module(f"edgekd.cli.{name}").app), rest

    def invoke(self, ctx: Any) -> Any:
        """Run a command; an error that was raised on purpose becomes a message and an exit code."""
        try:
            return super().invoke(ctx)
        except (EdgekdError, KeyboardInterrupt, MemoryError, OSError) as error:
            if ctx.params["debug"]:
                raise
            raise typer.Exit(_report(error)) from error


app = typer.Typer(
    name="edgekd",
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)


@app.callback()
def edgekd(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_version)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Distil a compact int8 student, prove it on the runtime that ships, and gate it in CI.

    Exit codes: 0 pass, 1 a gate failed, 2 your file or usage, 3 something is missing, 4 the work failed,
    5 inconclusive.
    """


def _version(wanted: bool) -> None:
    if wanted:
        screen.show(f"edgekd {__version__}")
        raise typer.Exit


def _report(error: EdgekdError | KeyboardInterrupt | MemoryError | OSError) -> int:
    """Tell the user, and say with which code the process ends."""
    match error:
        case EdgekdError():
            screen.error(str(error))
            return error.exit_code
        case KeyboardInterrupt():
            screen.error("interrupted; the run folder keeps what was finished")
            return INTERRUPTED
        case MemoryError():
            screen.error(f"out of memory{f': {error}' if str(error) else ''}")
            return EdgekdError.exit_code
        case BrokenPipeError():  # the reader of our output went away, as in `edgekd ... | head`
            screen.close()
            return PIPE_BROKEN
        case OSError():
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            hint = "free some space" if full else "edgekd --debug COMMAND shows where it happened"
            screen.error(str(StorageError(error.strerror or str(error), where=error.filename, hint=hint)))
            return StorageError.exit_code
