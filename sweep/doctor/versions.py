"""Whether the packages are those that the project was tested with: of constraints.txt, where it is at hand."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from sweep.doctor.rows import Row, row

CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"
PACKAGES = ("torch", "ray", "optuna", "pyarrow", "duckdb", "pydantic", "safetensors", "scikit-learn")
TESTED_PYTHON = "3.11"


def check() -> list[Row]:
    tested = pinned(CONSTRAINTS.read_text() if CONSTRAINTS.exists() else "")
    return [_python(platform.python_version())] + [_package(name, tested.get(name)) for name in PACKAGES]


def _python(found: str) -> Row:
    minor = ".".join(found.split(".")[:2])
    return row("python", "ok", found) if minor == TESTED_PYTHON else compared("python", found, TESTED_PYTHON)


def pinned(constraints: str) -> dict[str, str]:
    """The versions that a constraints file names, by package."""
    lines = (line.split("#")[0].strip() for line in constraints.splitlines())
    return {name.lower(): number for name, equals, number in (line.partition("==") for line in lines) if equals}


def compared(name: str, found: str, tested: str | None) -> Row:
    """A build of the tested version, such as 2.13.0+cu128 of 2.13.0, is that version."""
    if tested is None or found.partition("+")[0] == tested:
        return row(name, "ok", found)
    return row(name, "warn", f"{found}, an untested version", f"tested with {tested}")


def _package(name: str, tested: str | None) -> Row:
    try:
        return compared(name, version(name), tested)
    except PackageNotFoundError:
        return row(name, "FAILED", "not installed", f"pip install -c constraints.txt {name}")
