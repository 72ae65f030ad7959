"""What all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

BESIDE = Path(__file__).parents[1].parent / "shared" / "data"


def pytest_configure() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def real_data() -> Path:
    """The folder of real data sets, $SWEEP_DATA or the one beside the project; without one the test is skipped."""
    root = Path(os.environ.get("SWEEP_DATA") or BESIDE)
    if not root.is_dir():
        pytest.skip("needs real data sets under $SWEEP_DATA")
    return root


@pytest.fixture
def reference(real_data: Path) -> Path:
    """The folder of the papers' numbers, beside the real data sets; without one the test is skipped."""
    folder = real_data.parent / "reference"
    if not folder.is_dir():
        pytest.skip(f"needs the papers' numbers in {folder}")
    return folder
