"""The import rule, `attacks <- trainers <- sweep`, in processes of their own."""

from __future__ import annotations

import subprocess
import sys

ABOVE = ("ray", "optuna", "pyarrow", "pandas", "sweep")
EVERY_MODULE = """
import importlib, pkgutil
for package in map(importlib.import_module, {packages}):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
"""


def loaded(code: str) -> set[str]:
    """The modules in sys.modules after the code has run in a fresh interpreter."""
    told = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    return set(told.stdout.split())


def test_attacks_and_trainers_stand_without_the_sweep() -> None:
    modules = loaded(EVERY_MODULE.format(packages=["attacks", "trainers"]))
    assert {"attacks.semantic.jpeg", "trainers.loop", "trainers.models.io", "trainers.samplers.cas"} <= modules
    assert not modules & set(ABOVE)


def test_attacks_stand_without_trainers() -> None:
    modules = loaded(EVERY_MODULE.format(packages=["attacks"]))
    assert "attacks.apgd" in modules
    assert not modules & {*ABOVE, "trainers"}


def test_importing_the_sweep_or_the_attacks_costs_nothing() -> None:
    modules = loaded("import sweep, attacks, attacks.errors")
    assert "sweep" in modules
    assert not modules & {"ray", "torch", "optuna", "pyarrow", "pandas", "duckdb", "numpy"}
