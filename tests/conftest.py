"""Shared fixtures."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# The console keeps the width that COLUMNS has when it is created. Tests set other widths later.
os.environ.pop("COLUMNS", None)

# Several test processes share the cores. Libraries read these variables when they are first imported.
if "PYTEST_XDIST_WORKER" in os.environ:
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(variable, "1")

from actionprep.cli import output  # noqa: F401

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real recordings next to the checkout. Tests that need it are skipped where it is missing."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"real recordings are not at {SHARED_DATA}")
    return SHARED_DATA
