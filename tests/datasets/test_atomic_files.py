"""Files are replaced as a whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from actionprep.datasets.atomic_files import atomic_file, write_text


def test_atomic_file_replaces_the_content(tmp_path: Path) -> None:
    path = tmp_path / "new" / "result.csv"
    write_text(path, "old")
    with atomic_file(path, sync=True) as draft:
        draft.write_text("new")
        assert draft.suffix == ".csv"
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("fixed", [False, True])
def test_atomic_file_keeps_the_old_content_on_error(tmp_path: Path, fixed: bool) -> None:
    path = tmp_path / "result.csv"
    write_text(path, "old")
    with pytest.raises(RuntimeError), atomic_file(path, fixed=fixed) as draft:
        _fail_in_the_middle(draft)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_atomic_file_fixed_draft_is_reused(tmp_path: Path) -> None:
    path, names = tmp_path / "result.h5", set()
    for _ in range(2):
        with atomic_file(path, fixed=True) as draft:
            draft.write_text("x")
            names.add(draft.name)
    assert names == {".result.partial.h5"}


def test_atomic_file_writes_through_no_link(tmp_path: Path) -> None:
    victim = tmp_path / "victim.txt"
    victim.write_text("mine")
    (tmp_path / ".result.partial.csv").symlink_to(victim)
    with atomic_file(tmp_path / "result.csv", fixed=True) as draft:
        draft.write_text("x")
    assert victim.read_text() == "mine"
    assert not (tmp_path / "result.csv").is_symlink()


def _fail_in_the_middle(draft: Path) -> None:
    draft.write_text("half")
    raise RuntimeError
