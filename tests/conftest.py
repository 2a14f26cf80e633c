"""Fixtures that all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# The console keeps the width that COLUMNS gives when it is made, and tests give it widths of their own later.
os.environ.pop("COLUMNS", None)

from actionprep.cli import output  # noqa: F401

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real recordings beside the checkout; tests that need it skip where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"real recordings are not at {SHARED_DATA}")
    return SHARED_DATA
