"""Stores with links, and items that name paths outside their folder."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from odd_names import ESCAPES, snapshot

from actionprep.datasets.store.keys import ItemKey
from actionprep.datasets.store.metadata import group_text_with_checksum
from actionprep.datasets.store.reader import DamagedItemError
from actionprep.datasets.store.zarr_store import Store
from actionprep.errors import SetupError, UserError


def write(store: Store, product: str, recording: str, view: str = "0", *, value: int = 1) -> ItemKey:
    with store.write(product, recording, view, fingerprint=str(value), provenance={"stage": product}) as item:
        item.write("values", np.full(5, value), axes=("t",))
    return ItemKey(product, recording, view)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Two products. "tracks" is a link to a folder elsewhere."""
    made = Store(tmp_path / "study/store", create=True)
    for product in ("frames", "tracks"):
        for recording in ("a", "b/c"):
            write(made, product, recording)
    return made


def move(store: Store, name: str, to: Path) -> Path:
    """Move a folder out of the store and replace it with a link."""
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(store.path / name, to)
    (store.path / name).symlink_to(to)
    return to


@pytest.mark.parametrize("part", ["tracks", "tracks/b", "tracks/b/c", "tracks/a/0"])
def test_moved_part_changes_nothing(store: Store, tmp_path: Path, part: str) -> None:
    items, digest, sizes = store.items(), store.digest(), store.nbytes()
    far = move(store, part, tmp_path / "disk/part")
    store = Store(store.path)
    assert store.items() == items
    assert store.items("tracks") == [key for key in items if key.product == "tracks"]
    assert (store.digest(), store.nbytes()) == (digest, sizes)
    assert [damage for _, damage in store.verify()] == [None] * 4
    chunk = next(path for path in far.rglob("values/c/*") if path.is_file())
    chunk.write_bytes(bytes(len(chunk.read_bytes())))
    assert sum(damage is not None for _, damage in store.verify()) == 1


def test_write_through_link_stays_on_its_disk(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    far = move(store, "tracks", tmp_path / "disk/tracks")
    rename = Path.rename

    def between_disks(self: Path, target: Path) -> Path:
        on = {Path(os.path.realpath(path.parent)).is_relative_to(far) for path in (self, Path(target))}
        if len(on) > 1:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(self), None, str(target))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", between_disks)
    new, old = write(store, "tracks", "new"), write(store, "tracks", "a", value=2)
    assert store.item("tracks", "a", "0")["values"][0] == 2
    assert (far / "new/0/values").is_dir()
    store.remove(old)
    assert not (far / "a/0").exists()
    assert new in store.items()
    (far / ".partial" / f"12-{'a' * 32}").mkdir()
    store.clear_partial()
    assert not (far / ".partial").exists()


def test_item_that_moves_between_disks_is_an_environment_error(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(self), None, str(target))

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(SetupError, match=r"Cannot move .* to .*/tracks/new/0: they are on different disks") as caught:
        write(store, "tracks", "new")
    assert "Replace the mount by a link, or set 'store' under [study]" in str(caught.value)


def test_unmounted_part_is_not_taken_for_lost(store: Store, tmp_path: Path) -> None:
    shutil.rmtree(move(store, "tracks", tmp_path / "disk/tracks"))
    uses = (
        store.items, store.digest, lambda: list(store.verify()), lambda: write(store, "tracks", "a"),
        lambda: store.items("tracks"), lambda: store.has("tracks", "a", "0"),
    )  # fmt: skip
    for use in uses:
        with pytest.raises(SetupError, match=r"store/tracks is a symbolic link to .*disk/tracks, which does not exist"):
            use()


def test_loops_end(store: Store) -> None:
    items = store.items()
    (store.path / "tracks/up").symlink_to("..")
    (store.path / "tracks/study").symlink_to(store.path.parent)
    assert store.items() == items
    assert [damage for _, damage in store.verify()] == [None] * 4


def test_nothing_is_written_to_another_store(store: Store, tmp_path: Path) -> None:
    other = Store(tmp_path / "other/store", create=True)
    key = write(other, "tracks", "a")
    shutil.rmtree(store.path / "tracks")
    (store.path / "tracks").symlink_to(other.path / "tracks")
    before = snapshot(tmp_path / "other")
    assert key in store.items()
    for use in (lambda: store.remove(key), lambda: write(store, "tracks", "a", value=3)):
        with pytest.raises(
            UserError, match=r"The place of tracks/a/0 in .* is, through a symbolic link, in another store"
        ):
            use()
    assert snapshot(tmp_path / "other") == before


@pytest.mark.parametrize("inside", ["tracks/a/0/chapter.txt", "tracks/a/0", ".partial/chapter.txt"])
def test_what_is_no_item_behind_a_link_is_kept(store: Store, tmp_path: Path, inside: str) -> None:
    victim = tmp_path / "victim"
    (victim / inside).parent.mkdir(parents=True)
    (victim / inside).write_text("three years of work")
    shutil.rmtree(store.path / "tracks")
    (store.path / "tracks").symlink_to(victim / "tracks" if inside.startswith("tracks") else victim)
    store.clear_partial()
    if inside.startswith("tracks"):
        with pytest.raises(UserError, match=r"is, through a symbolic link, .*victim/tracks/a/0, which is not an item"):
            write(store, "tracks", "a")
    else:
        write(store, "tracks", "a")
    store.clear_partial()
    assert (victim / inside).read_text() == "three years of work"


def test_two_products_never_share_a_folder(store: Store) -> None:
    (store.path / "pose").symlink_to("tracks")
    before = snapshot(store.path / "tracks")
    with pytest.raises(UserError, match=r"is, through a symbolic link, that of tracks/a/0. Delete the link"):
        write(store, "pose", "a")
    assert not store.has("pose", "a", "0")
    assert store.items("pose") == []
    assert snapshot(store.path / "tracks") == before


def test_links_inside_items_are_damage_and_never_followed(store: Store, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    shutil.copytree(store.path / "tracks/a/0/values", victim / "values")
    shutil.rmtree(store.path / "tracks/a/0/values")
    (store.path / "tracks/a/0/values").symlink_to(victim / "values")
    before = snapshot(victim)
    [reason] = [damage.reason for _, damage in store.verify() if damage is not None]
    assert reason == f"Damaged item tracks/a/0: {store.path}/tracks/a/0/values is a symbolic link."
    write(store, "tracks", "a")
    assert [damage for _, damage in store.verify()] == [None] * 4
    (store.path / "tracks/a/0/values/more").symlink_to(victim)
    store.remove(ItemKey("tracks", "a", "0"))
    assert snapshot(victim) == before


def test_dangling_link_inside_item_is_damage(store: Store) -> None:
    (store.path / "tracks/a/0/more").symlink_to("nowhere")
    [damage] = [damage for _, damage in store.verify() if damage is not None]
    assert damage.reason == f"Damaged item tracks/a/0: {store.path}/tracks/a/0/more is a symbolic link."
    store.clear_partial()
    write(store, "tracks", "a")
    assert [damage for _, damage in store.verify()] == [None] * 4


@pytest.mark.parametrize(
    "metadata", [None, "{}", '{"zarr_format": 3, "node_type": "group", "attributes": {"mine": 1}}']
)
def test_folders_behind_a_link_that_are_not_the_stores(store: Store, tmp_path: Path, metadata: str | None) -> None:
    (tmp_path / "victim/notes").mkdir(parents=True)
    if metadata is not None:
        for folder in ("victim", "victim/notes"):
            (tmp_path / folder / "zarr.json").write_text(metadata)
    (store.path / "more").symlink_to(tmp_path / "victim")
    before = snapshot(tmp_path / "victim")
    assert [damage for _, damage in store.verify()] == [None] * 4
    store.repair_folders(damage for _, damage in store.verify() if damage is not None)
    assert snapshot(tmp_path / "victim") == before


def test_metadata_of_folders_behind_links_is_repaired(store: Store, tmp_path: Path) -> None:
    far = move(store, "tracks", tmp_path / "disk/tracks")
    before = snapshot(far)
    (far / "zarr.json").write_text("{")
    (far / "b/zarr.json").unlink()
    damage = [damage for _, damage in store.verify() if damage is not None]
    assert [entry.place for entry in damage] == ["tracks/zarr.json", "tracks/b/zarr.json"]
    store.repair_folders(damage)
    assert snapshot(far) == before


def test_folders_of_another_store_are_not_repaired(store: Store, tmp_path: Path) -> None:
    other = Store(tmp_path / "other/store", create=True)
    write(other, "pose", "a")
    (other.path / "pose/zarr.json").unlink()
    (store.path / "pose").symlink_to(other.path / "pose")
    before = snapshot(other.path)
    damage = [damage for _, damage in store.verify() if damage is not None]
    assert [entry.place for entry in damage] == ["pose/zarr.json"]
    with pytest.raises(
        UserError, match=r"The place of pose/zarr.json in .* in another store, .*other/store. Nothing is"
    ):
        store.repair_folders(damage)
    assert snapshot(other.path) == before


def test_link_to_array_is_no_item(store: Store) -> None:
    items = store.items()
    (store.path / "tracks/a/more").symlink_to("0/values")
    assert store.items() == items
    assert store.items("tracks") == [key for key in items if key.product == "tracks"]


def test_item_that_is_a_link_is_unlinked(store: Store, tmp_path: Path) -> None:
    far = move(store, "tracks/a/0", tmp_path / "disk/item")
    before = snapshot(far)
    write(store, "tracks", "a", value=9)
    assert not (store.path / "tracks/a/0").is_symlink()
    shutil.rmtree(store.path / "tracks/a/0")
    (store.path / "tracks/a/0").symlink_to(far)
    store.remove(ItemKey("tracks", "a", "0"))
    assert not os.path.lexists(store.path / "tracks/a/0")
    assert snapshot(far) == before


def test_folder_of_drafts_is_never_a_link(store: Store, tmp_path: Path) -> None:
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim/file").write_text("kept")
    shutil.rmtree(store.path / ".partial")
    for use in (store.clear_partial, lambda: write(store, "frames", "d")):
        (store.path / ".partial").symlink_to(tmp_path / "victim")
        use()
        assert snapshot(tmp_path / "victim") == {"file": b"kept"}


@pytest.mark.parametrize(
    ("part", "name"), [("product", ".."), ("view", "../victim"), *(("recording", name) for name in ESCAPES)]
)
def test_names_in_attributes_lead_nowhere(store: Store, tmp_path: Path, part: str, name: str) -> None:
    path = store.path / "tracks/a/0/zarr.json"
    attributes = json.loads(path.read_text())["attributes"]
    attributes["item"][part] = name
    path.write_text(group_text_with_checksum(attributes))
    assert store.items()[2] == ItemKey("tracks", "a", "0")
    assert all(str(key) == key.path and ".." not in key.path for key in store.items())
    damaged = {str(key): damage.reason for key, damage in store.verify() if damage is not None}
    assert set(damaged) == {"tracks/a/0"}
    assert damaged["tracks/a/0"].startswith("Damaged item tracks/a/0: its metadata names another item, ")
    with pytest.raises(DamagedItemError, match="Damaged item tracks/a/0: its metadata names another item"):
        store.digest()
    key = ItemKey("tracks", "a", "0")
    assert store.intact([key]) == []
    assert [damage.key for damage in store.lost()] == [key]
    for use in (lambda: store.has("tracks", "a", "0"), lambda: store.remove(key)):
        with pytest.raises(DamagedItemError, match=r"names another item, .*\. Run 'actionprep verify --repair'"):
            use()
    write(store, "tracks", "a")
    assert [damage for _, damage in store.verify()] == [None] * 4
    assert {path.name for path in tmp_path.iterdir()} == {"study"}


@pytest.mark.parametrize("name", ESCAPES)
def test_keys_that_lead_out_are_refused(store: Store, tmp_path: Path, name: str) -> None:
    (tmp_path / "victim").mkdir()
    before = snapshot(tmp_path)
    key = ItemKey("tracks", name, "0")
    for use in (
        lambda: write(store, "tracks", name),
        lambda: store.remove(key),
        lambda: store.item("tracks", name, "0"),
    ):
        with pytest.raises(UserError, match="below"):
            use()
    assert snapshot(tmp_path) == before
