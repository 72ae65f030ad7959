"""The command line. Data goes to stdout, all else to stderr. Exit codes: 0 done, 1 failed, 2 wrong use or input,
3 finished but some trials failed, 130/143 interrupted and resumable."""

from __future__ import annotations

import logging
import sys

import typer

from attacks.errors import InputError
from sweep.cli import catalogue, read, run

app = typer.Typer(
    name="sweep",
    help="Hyper-parameter sweeps for multi-attack adversarial fine-tuning. Every VERB has its own --help.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)
for module in (run, read, catalogue):
    for name, command in module.COMMANDS.items():
        app.command(name)(command)


def main() -> None:
    """`python -m sweep` and `sweep`. `--debug`, anywhere, shows the traceback of an error."""
    debug = "--debug" in sys.argv
    sys.argv = [argument for argument in sys.argv if argument != "--debug"]
    logging.basicConfig(stream=sys.stderr, format="%(levelname)s: %(message)s", level=logging.WARNING)
    try:
        app(prog_name="sweep")
    except InputError as e:
        if debug:
            raise
        print(f"error: {e}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        sys.exit(0)
    except Exception as e:
        if debug:
            raise
        print(f"failed: {type(e).__name__}: {e} (--debug shows where)", file=sys.stderr)
        sys.exit(1)
