"""The commands `export npz` and `export hdf5`."""

from __future__ import annotations

import sys
from subprocess import run

import pytest
from prep_commands import actionprep, document
from typer.testing import CliRunner

from actionprep.api import Study
from actionprep.cli.prep import app


@pytest.fixture
def prepared(study: Study) -> Study:
    """A study with small frames, snippets and a split."""
    rows = "".join(f"{name},0.0,0.8,wave\n" for name in ("first", "second"))
    (study.root / "segments.csv").write_text(f"recording,onset,offset,label\n{rows}")
    study.scan()
    for command in (
        ("lowres", "--workers", "0"),
        ("snippets", "--length", "400", "--background", "still"),
        ("split", "--train-groups", "first", "--test-groups", "second", "--val", "0"),
    ):
        assert actionprep(study, *command).exit_code == 0
    return study


def test_export_hdf5_prints_items_and_the_next_command(prepared: Study) -> None:
    path = prepared.root / "my store.h5"
    result = actionprep(prepared, "export", "hdf5", str(path))
    assert result.exit_code == 0
    assert result.stdout.split()[:4] == ["Items", "product", "items", "lowres"]
    assert f"Wrote {path}" in result.stdout
    assert f"actiontrain fit '{path}'" in result.stdout
    assert not document(prepared, "export", "hdf5", str(path))["written"]
    result = actionprep(prepared, "export", "hdf5", str(path), "--products", "lowres")
    assert result.exit_code == 2
    assert "Replace it with --overwrite" in result.stderr


def test_export_npz_prints_snippets_by_part(prepared: Study) -> None:
    out = str(prepared.root / "out")
    made = document(prepared, "export", "npz", out, "--size", "16", "--views", "1")
    assert made["snippets"] == {"train": {"still": 2, "wave": 2}, "val": {}, "test": {"still": 2, "wave": 2}}
    assert (made["written"], made["kept"], made["views"]) == (8, 0, ["1"])
    folder = prepared.root / "out" / "study_default_length_400_sample_rate_1_iou_0.5"
    assert made["folder"] == str(folder)
    again = actionprep(prepared, "export", "npz", out, "--size", "16", "--views", "1")
    assert "Wrote 0 files, 8 were there already; views 1; from lowres" in again.stdout
    assert f"actiontrain fit {folder}" in again.stdout


def test_export_help_does_not_import_h5py() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from actionprep.cli.prep import app; "
        "assert CliRunner().invoke(app, ['export', 'hdf5', '--help']).exit_code == 0; "
        "print(sorted({'h5py', 'torch', 'zarr', 'numpy'} & set(sys.modules)))"
    )
    assert run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip() == "[]"


def test_export_without_a_format_lists_them() -> None:
    result = CliRunner().invoke(app, ["export"])
    assert "npz" in result.output
    assert "hdf5" in result.output
