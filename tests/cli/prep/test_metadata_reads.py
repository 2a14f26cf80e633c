"""Commands read the metadata of the store once."""

from __future__ import annotations

import time

import pytest
from metadata_reads import metadata_reads
from prep_commands import actionprep

from actionprep.api import Study


@pytest.mark.parametrize("command", [("status",), ("plan",), ("track", "--workers", "0"), ("lowres", "--workers", "0")])
def test_command_opens_each_metadata_file_at_most_twice(study: Study, command: tuple[str, ...]) -> None:
    assert actionprep(study, "track", "--workers", "0").exit_code == 1  # nothing moves in one of the views
    time.sleep(0.2)  # files that are younger than a step of the file system's clock are read again
    with metadata_reads(study.folder.store) as reads:
        assert actionprep(study, *command).exit_code <= 1
    # The root is read by each object that opens the store; what lowres makes is also read while it is made.
    existing = {name: count for name, count in reads.items() if name.startswith(("masks", "tracks"))}
    assert max(existing.values(), default=0) <= 2, existing
    assert reads["zarr.json"] >= 1
