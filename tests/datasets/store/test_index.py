"""The index of a store: never another state than the items themselves have, and no file opened twice."""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from metadata_reads import metadata_reads

from actionprep.datasets.store.index import FILE, Index
from actionprep.datasets.store.keys import ItemKey
from actionprep.datasets.store.reader import DamagedItemError
from actionprep.datasets.store.zarr_store import Store
from actionprep.errors import UserError

# Longer than the clock of a file system takes for one step, so that the index trusts what was written.
SETTLED_S = 0.15


@pytest.fixture
def path(tmp_path: Path) -> Path:
    store = Store(tmp_path / "store", create=True)
    for view in range(4):
        write(store, f"take/{view}", 0)
    time.sleep(SETTLED_S)
    Store(store.url).snapshot()
    return Path(store.url)


def write(store: Store, name: str, value: int, product: str = "frames") -> None:
    recording, view = name.split("/")
    with store.write(product, recording, view, fingerprint=f"f{value}", provenance={"settings": {}}) as item:
        item.write("time", np.full(3, value), axes=("t",))
        item.attributes["value"] = value


def items_on_disk(path: Path) -> dict[str, dict[str, Any]]:
    """Attributes of all items, read without the store."""
    documents = {file.parent: json.loads(file.read_text()) for file in path.rglob("zarr.json")}
    return {
        folder.relative_to(path).as_posix(): document["attributes"]
        for folder, document in documents.items()
        if "digest" in document.get("attributes", {})
    }


def items_of(store: Store) -> dict[str, dict[str, Any]]:
    snapshot = store.snapshot()
    return {key.path: snapshot.metadata(key) or {} for key in snapshot.items()}


def test_snapshot_opens_no_item_of_an_indexed_store(path):
    with metadata_reads(path) as reads:
        snapshot = Store(path).snapshot()
        assert [snapshot.metadata(key)["stage"] for key in snapshot.items()] == [{"value": 0}] * 4
        assert snapshot.nbytes() == {"frames": 96}
        assert len(snapshot.digest()) == 64
    assert reads == {"zarr.json": 1}


def test_snapshot_opens_only_changed_items(path):
    write(Store(path), "take/2", 7)
    with metadata_reads(path) as reads:
        items = items_of(Store(path))
    assert [name for name in reads if name.startswith("frames/take/") and name != "frames/take/zarr.json"] == [
        "frames/take/2/zarr.json"
    ]
    assert items == items_on_disk(path)


@pytest.mark.parametrize("seed", range(4))
def test_snapshot_equals_the_items_after_any_change(path, seed):
    draws, held = random.Random(seed), Store(path)
    for step in range(25):
        store = held if draws.random() < 0.5 else Store(path)
        name, product = f"{draws.choice('ab')}/{draws.randrange(3)}", draws.choice(["frames", "lowres"])
        action = draws.choice(["write", "write", "remove", "delete", "restore", "drop index", "cut index"])
        place = path / product / name
        if action == "write":
            write(store, name, step, product)
        elif action == "remove" and place.exists():
            store.remove(ItemKey(product, *name.split("/")))
        elif action == "delete":
            shutil.rmtree(place.parent, ignore_errors=True)
        elif action == "restore" and place.exists():  # as a copy that keeps time stamps
            copy = path.parent / "copy"
            shutil.copytree(place, copy)
            write(store, name, step, product)
            shutil.rmtree(place)
            copy.rename(place)
        elif action == "drop index":
            (path / FILE).unlink(missing_ok=True)
        elif action == "cut index" and (path / FILE).exists():
            content = (path / FILE).read_bytes()
            (path / FILE).write_bytes(content[: draws.randrange(len(content))])
        assert items_of(held) == items_on_disk(path), (step, action)
        assert items_of(Store(path)) == items_on_disk(path), (step, action)


def test_snapshot_sees_only_committed_items(path):
    with Store(path).write("frames", "new", "0", fingerprint="f", provenance={}) as item:
        item.write("time", np.zeros(3), axes=("t",))
        assert "frames/new/0" not in items_of(Store(path))
    assert "frames/new/0" in items_of(Store(path))


def test_snapshot_keeps_its_state(path):
    snapshot = Store(path).snapshot()
    write(Store(path), "late/0", 1)
    assert ItemKey("frames", "late", "0") not in snapshot.items()
    assert snapshot.metadata(ItemKey("frames", "late", "0")) is None


def test_snapshot_opens_a_replaced_item_as_it_is_now(path):
    snapshot = Store(path).snapshot()
    write(Store(path), "take/1", 5)
    item = snapshot.item("frames", "take", "1")
    assert (item.fingerprint, item["time"][:].tolist()) == ("f5", [5, 5, 5])


def test_snapshot_notices_a_flipped_bit_of_metadata(path):
    file = path / "frames/take/1/zarr.json"
    file.write_bytes(file.read_bytes().replace(b'"value": 0', b'"value": 1'))
    snapshot = Store(path).snapshot()
    with pytest.raises(DamagedItemError, match=r"Damaged item frames/take/1: its metadata .* is not what was written"):
        snapshot.metadata(ItemKey("frames", "take", "1"))
    assert [key.view for key in snapshot.intact(snapshot.items())] == ["0", "2", "3"]


def test_proofs_do_not_trust_the_index(path):
    digest = Store(path).digest()
    index = Index.read(path)
    for record in index.records.values():
        record.attributes = {**record.parsed(), "digest": "0" * 64}
    index.write(path)
    assert Store(path).snapshot().digest() != digest  # the forged index is in use
    assert Store(path).digest() == digest
    assert [damage for _, damage in Store(path).verify()] == [None] * 4


def test_index_with_paths_out_of_the_store_is_not_used(path):
    index = Index.read(path)
    record = index.records.pop("frames/take/0")
    record.key = ("..", "outside", "0")
    index.records["../outside/0"] = record
    index.write(path)
    assert Index.read(path) is None
    assert items_of(Store(path)) == items_on_disk(path)


def test_index_is_optional_where_the_disk_refuses(path, monkeypatch):
    (path / FILE).unlink()
    monkeypatch.setattr(Path, "write_bytes", lambda *_: (_ for _ in ()).throw(OSError(30, "Read-only file system")))
    assert items_of(Store(path)) == items_on_disk(path)
    assert not (path / FILE).exists()


def test_index_leaves_no_drafts_behind(path):
    (path / f"{FILE}.interrupted").write_text("half an index")
    Store(path).clear_partial()
    assert [file.name for file in path.iterdir() if file.name.startswith(FILE)] == [FILE]


def test_snapshot_refuses_writing(path):
    with (
        pytest.raises(RuntimeError, match="A snapshot of a store is read-only"),
        Store(path).snapshot().write("frames", "a", "0", fingerprint="f", provenance={}),
    ):
        pass


def test_snapshot_refuses_keys_out_of_the_store(path):
    with pytest.raises(UserError, match="cannot name a file or folder below"):
        Store(path).snapshot().metadata(ItemKey("frames", "..", "x"))


def test_snapshot_is_a_store_in_other_processes(path):
    store = pickle.loads(pickle.dumps(Store(path).snapshot()))
    assert type(store) is Store
    assert len(store.items()) == 4


def test_index_reads_recently_changed_files_again(path):
    write(Store(path), "take/0", 3)
    Store(path).snapshot()
    changed_ns = os.stat(path / "frames/take/0/zarr.json").st_ctime_ns
    index = Index.read(path)
    record = index.records["frames/take/0"]
    assert record.signature.is_settled(changed_ns + 10**8 + 1)
    assert not record.signature.is_settled(changed_ns)
