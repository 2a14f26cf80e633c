"""Compare `actionprep --help` with the `--help` of an empty Typer program, each in a new process."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.common import Results, interleaved

EMPTY = """
import typer

app = typer.Typer(add_completion=False)


@app.command()
def one() -> None:
    \"\"\"Do one thing.\"\"\"


@app.command()
def two() -> None:
    \"\"\"Do another.\"\"\"


app()
"""


def main() -> int:
    """Run."""
    results = Results("start", settings={"rounds": 15})
    with tempfile.TemporaryDirectory() as folder:
        empty = Path(folder) / "empty.py"
        empty.write_text(EMPTY)
        ours = [sys.executable, "-c", "from actionprep.cli import prep; prep()", "--help"]

        def run(command: list[str]) -> None:
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

        sides = interleaved(
            {
                "actionprep --help": lambda: run(ours),
                "an empty Typer program --help": lambda: run([sys.executable, str(empty), "--help"]),
            },
            rounds=15,
        )
    results.add("start", sides)
    pairs = zip(sides["actionprep --help"].seconds, sides["an empty Typer program --help"].seconds, strict=True)
    results.mark("start: ours / empty", statistics.median(one / other for one, other in pairs), at_most=1.5)
    code = (
        "import sys\nsys.argv = ['actionprep', '--help']\nfrom actionprep.cli import prep\n"
        "try:\n    prep()\nexcept SystemExit:\n    pass\n"
        "print(*sorted({'torch', 'zarr', 'dask', 'numpy', 'av', 'cv2', 'pydantic'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    results.notes.append(f"heavy modules imported by --help: {done.stderr.strip() or 'none'}")
    results.mark("heavy modules imported", len(done.stderr.split()), at_most=0)
    results.save()
    return results.exit_code()


if __name__ == "__main__":
    raise SystemExit(main())
