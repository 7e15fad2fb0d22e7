"""`python -m edgekd` and the command `edgekd`."""

from __future__ import annotations

from edgekd.cli.app import app


def main() -> None:
    """Run the command line; ends the process with its exit code."""
    app(prog_name="edgekd")


if __name__ == "__main__":
    main()
