"""What commands print is what was meant, whatever characters it holds."""

from __future__ import annotations

from actionprep.api import list_formats
from actionprep.cli.output import print_table


def test_square_brackets_in_a_cell_are_printed_as_they_stand(capsys):
    print_table("Findings [1]", ("what", "remedy"), [("extra hf", "pip install 'actionprep[hf]'")])
    printed = capsys.readouterr().out
    assert "pip install 'actionprep[hf]'" in printed
    assert "Findings [1]" in printed


def test_formats_list_layouts_segments_and_poses():
    kinds = {kind for kind, _, _ in list_formats()}
    assert kinds == {"layout", "segments", "poses"}
