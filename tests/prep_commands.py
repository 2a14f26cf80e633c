"""Runs of `actionprep` on a study."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from actionprep.api import Study
from actionprep.cli.prep import app


def actionprep(study: Study | Path, *words: str) -> Result:
    root = study if isinstance(study, Path) else study.root
    return CliRunner().invoke(app, [*words, "--study", str(root)], catch_exceptions=False, env={"COLUMNS": "200"})


def document(study: Study | Path, *words: str) -> Any:
    result = actionprep(study, *words, "--json")
    return json.loads(result.stdout)
