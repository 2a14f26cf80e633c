"""Tests of the folder of quarantine entries."""

from __future__ import annotations

from pathlib import Path

import pytest
from odd_names import ESCAPES, snapshot

from actionprep.datasets.store.keys import ItemKey
from actionprep.errors import InputError, UserError
from actionprep.pipeline.quarantine import Quarantine

KEY = ItemKey("tracks", "day1/seq.04", "0")


def test_an_entry_says_why_where_and_with_what(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path / "quarantine")
    quarantine.add(KEY, InputError("upside down – twice", frame=7, backend="PyAV"), fingerprint="f")
    entry = quarantine.get(KEY)
    assert entry is not None
    assert (entry.reason, entry.frame, entry.backend, entry.fingerprint) == ("upside down – twice", 7, "PyAV", "f")
    assert [each.recording for each in quarantine] == ["day1/seq.04"]
    quarantine.clear(KEY)
    assert quarantine.get(KEY) is None
    assert list(quarantine) == []


@pytest.mark.parametrize("content", ["", '{"product": "tracks"', '{"product": "tracks"}', "[]"])
def test_an_entry_that_was_cut_short_counts_as_none(tmp_path: Path, content: str) -> None:
    quarantine = Quarantine(tmp_path)
    quarantine.add(KEY, InputError("dark"), fingerprint="f")
    [path] = tmp_path.rglob("*.json")
    path.write_text(content)
    assert quarantine.get(KEY) is None
    assert list(quarantine) == []


@pytest.mark.parametrize("name", ESCAPES)
def test_names_that_lead_out_are_refused(tmp_path: Path, name: str) -> None:
    quarantine, key = Quarantine(tmp_path / "quarantine"), ItemKey("tracks", name, "0")
    for use in (lambda: quarantine.add(key, InputError("dark"), fingerprint="f"), lambda: quarantine.clear(key)):
        with pytest.raises(UserError, match="cannot name a file or folder below"):
            use()
    assert snapshot(tmp_path) == {}


def test_link_that_leads_out_is_refused(tmp_path: Path) -> None:
    (tmp_path / "quarantine").mkdir()
    (tmp_path / "victim/day1/seq.04").mkdir(parents=True)
    (tmp_path / "victim/day1/seq.04/0.json").write_text("kept")
    (tmp_path / "quarantine/tracks").symlink_to(tmp_path / "victim")
    before, quarantine = snapshot(tmp_path), Quarantine(tmp_path / "quarantine")
    for use in (lambda: quarantine.add(KEY, InputError("dark"), fingerprint="f"), lambda: quarantine.clear(KEY)):
        with pytest.raises(UserError, match="leads through a symbolic link to"):
            use()
    assert snapshot(tmp_path) == before
