"""Settings of all tests. Helpers and shared fixtures are in `fixtures/`, which is on the import path."""

from __future__ import annotations

import os

# The consoles of this program and of Typer keep what these variables say when they are first imported, whichever test
# does that. Tests set other widths later.
for variable in ("COLUMNS", "LINES", "TERMINAL_WIDTH", "FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS"):
    os.environ.pop(variable, None)

# Several test processes share the cores. Libraries read these variables when they are first imported.
if "PYTEST_XDIST_WORKER" in os.environ:
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(variable, "1")

from hypothesis import HealthCheck, settings  # noqa: E402

from actionprep.cli import output  # noqa: E402, F401

# A busy machine must not decide a test.
settings.register_profile("actionprep", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("actionprep")

pytest_plugins = ["shared_files", "s3_server"]
