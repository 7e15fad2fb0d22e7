"""The command line as a whole: help, errors, exit codes, streams."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer

from edgekd import __version__
from edgekd.cli.app import COMMANDS, app
from edgekd.documents.recipe import Recipe
from edgekd.errors import DocumentError, EdgekdError, MissingError, UsageError

SCHEMA = "edgekd.cli.app.import_module"


def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgekd", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **options)


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes `edgekd schema` raise an error of the test's choice."""

    def arrange(error: BaseException) -> None:
        command = typer.Typer(add_completion=False)

        @command.command()
        def schema() -> None:
            raise error

        monkeypatch.setattr(SCHEMA, lambda name: SimpleNamespace(app=command))

    return arrange


def test_help_lists_every_command_without_importing_it(edgekd: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SCHEMA, lambda name: pytest.fail(f"{name} was imported"))
    result = edgekd("--help")
    assert result.exit_code == 0
    assert result.stdout.startswith("Usage: edgekd [OPTIONS] COMMAND [ARGS]...\n")
    assert all(f"\n  {name} " in result.stdout for name in COMMANDS)


def test_the_list_of_commands_fits_on_a_terminal(edgekd: Any) -> None:
    listed = edgekd("--help").stdout.partition("Commands:\n")[2]
    width = max(map(len, COMMANDS))
    assert listed == "".join(f"  {name:{width}}  {line}\n" for name, line in COMMANDS.items())


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_explains_itself(edgekd: Any, name: str) -> None:
    result = edgekd(name, "--help")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith(f"Usage: edgekd {name} ")


def test_version(edgekd: Any) -> None:
    result = edgekd("--version")
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"edgekd {__version__}\n", "")


def test_a_misspelt_command_is_corrected(edgekd: Any) -> None:
    result = edgekd("shema")
    assert result.exit_code == 2
    assert result.stderr == (
        "Usage: edgekd [OPTIONS] COMMAND [ARGS]...\n"
        "Try 'edgekd --help' for help.\n\n"
        "Error: No such command 'shema'. Did you mean 'schema'?\n"
    )


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (UsageError("too much", where="--seed", hint="less"), 2, "error: --seed: too much\n  try: less\n"),
        (DocumentError("a.toml", ["b: is missing"]), 2, "error: a.toml: 1 problem\n  b: is missing\n"),
        (MissingError("no torch"), 3, "error: no torch\n"),
        (EdgekdError("it broke"), 4, "error: it broke\n"),
        (KeyboardInterrupt(), 130, "error: interrupted; the run folder keeps what was finished\n"),
        (
            OSError(errno.ENOSPC, "No space left on device", "a.npy"),
            4,
            "error: a.npy: No space left on device\n  try: free some space\n",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "a.npy"),
            4,
            "error: a.npy: Permission denied\n  try: edgekd --debug COMMAND shows where it happened\n",
        ),
    ],
)
def test_an_error_is_a_message_and_an_exit_code(
    edgekd: Any, failing: Any, error: BaseException, code: int, text: str
) -> None:
    failing(error)
    result = edgekd("schema")
    assert (result.exit_code, result.stdout, result.stderr) == (code, "", text)


def test_debug_raises(edgekd: Any, failing: Any) -> None:
    failing(UsageError("too much"))
    result = edgekd("--debug", "schema")
    assert isinstance(result.exception, UsageError)


def test_a_bug_is_not_hidden(edgekd: Any, failing: Any) -> None:
    failing(ZeroDivisionError("ours"))
    assert isinstance(edgekd("schema").exception, ZeroDivisionError)


def test_exit_codes_of_the_process() -> None:
    assert run("--version").returncode == 0
    wrong = run("schema", "recip")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.startswith(
        "error: there is no document 'recip'; did you mean 'recipe'?\n  try: one of recipe"
    )
    assert run("schema", "--none").returncode == 2


def test_without_a_terminal_there_are_no_escape_codes() -> None:
    environment = {**os.environ, "TERM": "xterm-256color"}
    environment.pop("NO_COLOR", None)
    for arguments in (("--help",), ("devices", "list"), ("devices", "show", "nvidia-l4"), ("schema", "x")):
        result = run(*arguments, env=environment)
        assert "\x1b" not in result.stdout + result.stderr, arguments


def test_a_reader_that_goes_away_is_no_error() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "edgekd", "schema", "report"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_under_standard_output_is_no_traceback() -> None:
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "edgekd", "schema", "report"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert (result.returncode, result.stderr) == (
        4,
        "error: No space left on device\n  try: free some space\n",
    )


def test_completion_knows_the_commands_and_their_options() -> None:
    def complete(line: str) -> list[str]:
        words = line.split(" ")
        asked = {"_EDGEKD_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
        return run(env={**os.environ, **asked}).stdout.split()

    assert complete("edgekd dev") == ["devices"]
    assert complete("edgekd devices sh") == ["show"]
    assert complete("edgekd schema re") == ["recipe", "report"]
    assert "--json" in complete("edgekd devices show --")


def test_every_document_names_a_schema_that_the_command_knows(edgekd: Any) -> None:
    with pytest.raises(DocumentError) as caught:
        Recipe.parse({}, where="a.toml")
    assert caught.value.hint is not None
    assert edgekd(*caught.value.hint.split()[1:3]).exit_code == 0


def test_the_app_is_called_edgekd() -> None:
    assert app.info.name == "edgekd"
