"""The command line. Data goes to stdout, all else to stderr. Exit codes: 0 done, 1 failed, 2 wrong use or input,
3 finished but some trials failed, 4 reproduced numbers outside the tolerance, 130/143 interrupted and resumable."""

from __future__ import annotations

import logging
import sys
from typing import Any, NoReturn

import typer

from attacks.errors import InputError
from sweep.cli import analyse, catalogue, control, export, judge, papers, read, report, run, table, tradeoff

app = typer.Typer(
    name="sweep",
    help="Hyper-parameter sweeps for multi-attack adversarial fine-tuning. Every VERB has its own --help.",
    epilog="Example: sweep run cas --trials 6",
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)
for module in (run, control, judge, tradeoff, read, table, papers, analyse, report, export, catalogue):
    for name, command in module.COMMANDS.items():
        app.command(name)(command)

_WrongUse: Any = typer.BadParameter.__mro__[1]
"""Typer's base of what is wrong with a command line."""


def main() -> NoReturn:
    """`python -m sweep` and `sweep`. `--debug`, anywhere, shows the traceback of an error."""
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    logging.basicConfig(stream=sys.stderr, format="%(levelname)s: %(message)s", level=logging.WARNING)
    try:
        sys.exit(app(arguments or ["--help"], prog_name="sweep", standalone_mode=False))
    except Exception as e:
        if debug:
            raise
        message, code = _told(e)
        print(message, file=sys.stderr)
        sys.exit(code)


def _told(error: Exception) -> tuple[str, int]:
    """What to say of an error, and the exit code."""
    if isinstance(error, InputError):
        return f"error: {error}", 2
    if isinstance(error, _WrongUse):
        wrong: Any = error
        return f"error: {' '.join(wrong.format_message().split())} (--help, after the verb, shows what it takes)", 2
    return f"failed: {type(error).__name__}: {' '.join(str(error).split())} (--debug shows where)", 1
