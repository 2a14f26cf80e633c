"""Long versions of the fault tests: `python -m torture` runs all parts, `python -m torture PART` one of them."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "fixtures"))
