"""Dockerfile and compose.yaml agree with the package."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import yaml
from typer.testing import CliRunner

from actionprep.cli.prep import app

ROOT = Path(__file__).parent.parent


def test_dockerfile_installs_extras_of_the_package() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    [extras] = re.findall(r"'\.\[([a-z0-9,]+)\]'", text)
    assert set(extras.split(",")) <= set(project["optional-dependencies"])
    python = re.search(r"FROM python:(\d+\.\d+)", text)
    assert python is not None
    assert f">={python[1]}" in project["requires-python"]
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    copied = re.findall(r"^COPY (.+) \S+$", text, flags=re.MULTILINE)
    assert {f"!{name}" for names in copied for name in names.split()} <= set(ignored)


def test_compose_commands_have_the_options_they_use() -> None:
    services = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["services"]
    program, command, option, url = services["build"]["command"]
    assert (program, command) == ("actionprep", "build")
    assert option in CliRunner().invoke(app, ["build", "--help"]).output
    port = services["scheduler"]["command"][-1]
    assert url == services["worker"]["command"][2] == f"tcp://scheduler:{port}"
