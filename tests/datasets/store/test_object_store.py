"""Tests of stores in an S3 bucket: commits, readers, locks, damage, and failing requests."""

from __future__ import annotations

import json
import pickle
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from s3_server import Proxy

from actionprep.datasets.store import lock as lock_module
from actionprep.datasets.store.keys import ItemKey
from actionprep.datasets.store.lock import LockLostError, LockOwner, hold
from actionprep.datasets.store.object_files import ObjectFiles
from actionprep.datasets.store.object_lock import ObjectLock
from actionprep.datasets.store.opening import open_store, open_zarr_store
from actionprep.datasets.store.reader import DamagedItemError
from actionprep.datasets.store.zarr_store import Store
from actionprep.errors import SetupError, UserError

URL = "s3://studies/gym"


def put(store: Store, key: ItemKey, rows: np.ndarray, *, fingerprint: str = "f") -> None:
    with store.write(key.product, key.recording, key.view, fingerprint=fingerprint, provenance={}) as item:
        item.create("xy", shape=rows.shape[1:], dtype=rows.dtype, axes=("frame", "xy"), chunk=4)
        item.append("xy", rows)
        item.write("index", np.arange(len(rows)), axes=("frame",), codec="zstd")
        item.attributes["rows"] = len(rows)


def rows_of(seed: int, count: int = 10) -> np.ndarray:
    return np.random.default_rng(seed).random((count, 2), np.float32)


KEYS = [
    ItemKey("tracks", "a", "0"),
    ItemKey("tracks", "a", "1"),
    ItemKey("tracks", "day/b", "0"),
    ItemKey("split", "s"),
]


def fill(store: Store) -> Store:
    for seed, key in enumerate(KEYS):
        put(store, key, rows_of(seed))
    return store


@pytest.fixture
def files(s3: Proxy) -> ObjectFiles:
    return ObjectFiles(URL)


@pytest.fixture
def store(s3: Proxy) -> Iterator[Store]:
    return fill(open_zarr_store(URL, create=True))


def all_names(files: ObjectFiles) -> set[str]:
    return set(files.signatures("")) | set(files.signatures(".data"))


def data_folders(files: ObjectFiles) -> set[str]:
    return {f".data/{name}" for name in files.all_folders(".data")}


def test_items_digest_and_arrays_equal_a_local_store(store: Store, tmp_path: Path):
    local = fill(Store(tmp_path / "store", create=True))
    remote = open_store(URL)
    assert remote.items() == local.items() == sorted(KEYS)
    assert remote.digest() == local.digest()
    assert remote.products() == ["split", "tracks"]
    assert remote.nbytes() == local.nbytes()
    for seed, key in enumerate(KEYS):
        item = remote.item(key.product, key.recording, key.view)
        np.testing.assert_array_equal(item["xy"][:], rows_of(seed))
        np.testing.assert_array_equal(item["xy"][[9, 0, 4]], rows_of(seed)[[9, 0, 4]])
        assert list(item["index"][3:7]) == [3, 4, 5, 6]
        assert item.attributes == {"rows": 10}
    assert all(damage is None for _, damage in remote.verify())


def test_large_shards_are_read_by_chunk(s3: Proxy, tmp_path: Path):
    store, rows = open_zarr_store(URL, create=True), np.random.default_rng(0).random((40, 4096), np.float32)
    with store.write("frames", "a", "0", fingerprint="f", provenance={}) as item:
        item.create("x", shape=(4096,), dtype="float32", axes=("frame", "value"), chunk=8)
        item.append("x", rows)
    array = pickle.loads(pickle.dumps(open_store(URL).item("frames", "a", "0")))["x"]
    s3.requests.clear()
    np.testing.assert_array_equal(array[17], rows[17])
    assert len(s3.requests) == 2, "the index of the shard and one chunk"
    np.testing.assert_array_equal(array[:], rows)


def test_snapshot_reads_only_changed_metadata(store: Store, s3: Proxy):
    store.snapshot()
    s3.requests.clear()
    assert open_store(URL).items() == sorted(KEYS)
    read = [path for method, path in s3.requests if method == "GET" and "list-type" not in path]
    assert sorted(path.partition("/gym/")[2] for path in read) == [".index", "zarr.json"]
    put(store, KEYS[0], rows_of(9))
    s3.requests.clear()
    snapshot = open_store(URL).snapshot()
    read = [path for method, path in s3.requests if method == "GET" and path.endswith("tracks/a/0/zarr.json")]
    assert len(read) == 1
    np.testing.assert_array_equal(snapshot.item("tracks", "a", "0")["xy"][:], rows_of(9))


def test_an_old_snapshot_opens_the_item_as_it_is_now(store: Store):
    snapshot = open_store(URL).snapshot()
    put(store, KEYS[0], rows_of(9))
    np.testing.assert_array_equal(snapshot.item("tracks", "a", "0")["xy"][:], rows_of(9))


def test_replacing_an_item_leaves_no_old_data(store: Store, files: ObjectFiles):
    before = data_folders(files)
    put(store, KEYS[0], rows_of(9))
    after = data_folders(files)
    assert len(after) == len(before) == len(KEYS)
    assert len(after - before) == 1


def test_a_reader_never_sees_a_mixture_of_versions(store: Store):
    old = open_store(URL).item("tracks", "a", "0")
    put(store, KEYS[0], rows_of(9))
    with pytest.raises(DamagedItemError, match="missing"):
        old["xy"][:]
    np.testing.assert_array_equal(open_store(URL).item("tracks", "a", "0")["xy"][:], rows_of(9))


def put_wrongly(store: Store) -> None:
    with store.write("tracks", "c", "0", fingerprint="f", provenance={}) as item:
        item.write("xy", rows_of(0), axes=("frame", "xy"))
        item.write("index", rows_of(0), axes=())


def test_a_failed_block_commits_nothing(store: Store, files: ObjectFiles):
    before = all_names(files)
    with pytest.raises(ValueError, match="needs one axis name"):
        put_wrongly(store)
    assert all_names(files) == before


@pytest.mark.parametrize("sent", [1, 3, 6])
def test_an_interrupted_upload_is_invisible_and_cleared(store: Store, files: ObjectFiles, monkeypatch, sent: int):
    class KilledError(BaseException):
        pass

    digest, original, count = store.digest(), ObjectFiles.write, 0

    def write(self: ObjectFiles, path: str, content: bytes, **options: object) -> None:
        nonlocal count
        count += 1
        if count >= sent:
            raise KilledError
        original(self, path, content, **options)

    monkeypatch.setattr(ObjectFiles, "write", write)
    with pytest.raises(KilledError):
        put(store, KEYS[0], rows_of(9))
    monkeypatch.setattr(ObjectFiles, "write", original)
    reopened = open_store(URL)
    assert reopened.digest() == digest
    assert all(damage is None for _, damage in reopened.verify())
    with hold(reopened.lock()):
        reopened.clear_partial()
    assert len(data_folders(files)) == len(KEYS)
    assert reopened.digest() == digest


def test_remove_deletes_the_item_and_its_data(store: Store, files: ObjectFiles):
    store.remove(KEYS[0])
    assert open_store(URL).items() == sorted(KEYS[1:])
    assert len(data_folders(files)) == len(KEYS) - 1
    assert not any(name.startswith("tracks/a/0/") for name in all_names(files))
    with pytest.raises(UserError, match="No 'tracks' of view '0'"):
        store.remove(KEYS[0])


def test_an_item_replaces_a_folder_and_the_reverse(store: Store):
    put(store, ItemKey("tracks", "a"), rows_of(7))
    assert open_store(URL).items("tracks") == [ItemKey("tracks", "a"), ItemKey("tracks", "day/b", "0")]
    put(open_zarr_store(URL), ItemKey("tracks", "a", "1"), rows_of(8))
    assert open_store(URL).items("tracks") == [ItemKey("tracks", "a", "1"), ItemKey("tracks", "day/b", "0")]
    assert all(damage is None for _, damage in open_store(URL).verify())


def test_verify_finds_a_flipped_bit_in_every_object(s3: Proxy, files: ObjectFiles):
    put(open_zarr_store(URL, create=True), KEYS[0], rows_of(0))
    names = sorted(all_names(files))
    assert len(names) == 9  # root, two folders, item, group of its data, two arrays with one file each
    for name in names:
        content = files.read(name)
        assert content
        if name.startswith(".data/") and name.count("/") == 2:
            continue  # the group for plain Zarr, which nothing reads
        at = len(content) // 2
        files.write(name, content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :])
        damaged = open_zarr_store(URL, check_root=False)
        result = [damage for _, damage in damaged.verify() if damage is not None]
        assert len(result) == 1, name
        if result[0].is_folder:
            damaged.repair_folders(result)
            assert files.read(name) == content
        files.write(name, content)
    assert all(damage is None for _, damage in open_store(URL).verify())


def test_a_copy_of_a_local_store_is_read_and_replaced(s3: Proxy, files: ObjectFiles, tmp_path: Path):
    local = fill(Store(tmp_path / "store", create=True))
    for file in (tmp_path / "store").rglob("*"):
        if file.is_file():
            files.write(file.relative_to(tmp_path / "store").as_posix(), file.read_bytes())
    store = open_store(URL)
    assert store.digest() == local.digest()
    np.testing.assert_array_equal(store.item("tracks", "a", "0")["xy"][:], rows_of(0))
    put(store, KEYS[0], rows_of(0))
    assert open_store(URL).digest() == local.digest()
    assert {name for name in all_names(files) if name.startswith("tracks/a/0/")} == {"tracks/a/0/zarr.json"}


def test_a_copy_to_a_disk_is_read(store: Store, files: ObjectFiles, tmp_path: Path):
    for name in all_names(files):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(files.read(name) or b"")
    local = Store(tmp_path)
    assert local.digest() == store.digest()
    assert all(damage is None for _, damage in local.verify())


def test_plain_zarr_opens_the_arrays(store: Store):
    import zarr
    from obstore.store import S3Store
    from zarr.storage import ObjectStore

    place = ObjectStore(S3Store("studies", prefix="gym", client_options={"allow_http": True}), read_only=True)
    group = zarr.open_group(place, mode="r")
    data = group["tracks/a/0"].attrs["data"]
    np.testing.assert_array_equal(group[f"{data}/xy"][:], rows_of(0))


def test_metadata_cannot_name_data_outside_the_store(store: Store, files: ObjectFiles):
    from actionprep.datasets.store.metadata import group_text_with_checksum

    attributes = json.loads(files.read("tracks/a/0/zarr.json") or b"")["attributes"]
    for evil in ("../../secret", ".data/../tracks", 3):
        text = group_text_with_checksum({**{k: v for k, v in attributes.items() if "sha" not in k}, "data": evil})
        files.write("tracks/a/0/zarr.json", text.encode())
        with pytest.raises(DamagedItemError, match=r"its arrays are outside \.data"):
            open_store(URL).item("tracks", "a", "0")


def test_lock_names_a_running_owner(s3: Proxy):
    store = open_zarr_store(URL, create=True)
    with hold(store.lock()) as lock:
        lock.claim.require_held()
        lock.touch()
        lock.claim.require_held()
        with pytest.raises(UserError, match=r"(?s)Another builder is using.*delete s3://studies/gym/\.lock"):
            store.lock().acquire()
    store.lock().acquire()


def _foreign(files: ObjectFiles) -> ObjectLock:
    lock = ObjectLock(files)
    lock._owner = LockOwner(**{**lock._owner.__dict__, "host": "elsewhere", "boot": "other"})
    return lock


def test_lock_of_a_dead_owner_is_taken_over(files: ObjectFiles, monkeypatch: pytest.MonkeyPatch):
    dead, new = _foreign(files), ObjectLock(files)
    dead.acquire()
    with pytest.raises(UserError, match="on elsewhere"):
        new.acquire()
    time.sleep(1.1)  # the storage counts in seconds
    monkeypatch.setattr(lock_module, "ABANDONED_S", 0.5)
    new.acquire()
    new.claim.require_held()
    dead.touch()
    with pytest.raises(LockLostError, match="Another builder took over the lock"):
        dead.claim.require_held()
    dead.release()
    new.claim.require_held()
    new.release()
    assert files.names("") == []


def test_a_deleted_lock_stops_commits(store: Store, files: ObjectFiles):
    lock = store.lock()
    lock.acquire()
    files.delete([".lock"])
    with store.claimed(lock.claim), pytest.raises(LockLostError, match="was deleted during the build"):
        put(store, KEYS[0], rows_of(9))
    np.testing.assert_array_equal(open_store(URL).item("tracks", "a", "0")["xy"][:], rows_of(0))


def test_a_lost_answer_still_takes_the_lock(files: ObjectFiles, s3: Proxy):
    answers = iter([True])
    s3.cuts = lambda method, path: method == "PUT" and next(answers, False)
    lock = ObjectLock(files)
    lock.acquire()
    lock.claim.require_held()


def test_failing_requests_change_nothing(s3: Proxy, tmp_path: Path):
    s3.fail_randomly(0.05, seed=3)
    store = fill(open_zarr_store(URL, create=True))
    with hold(store.lock()):
        put(store, KEYS[0], rows_of(9))
        put(store, KEYS[0], rows_of(0))
        store.clear_partial()
    assert all(damage is None for _, damage in store.verify())
    digest = store.digest()
    s3.heal()
    assert digest == open_store(URL).digest() == fill(Store(tmp_path / "store", create=True)).digest()


def test_an_absent_bucket_and_store_are_named(s3: Proxy):
    with pytest.raises(SetupError, match="no bucket 'nobody' for the store s3://nobody/x"):
        open_zarr_store("s3://nobody/x", create=True)
    with pytest.raises(UserError, match="No store at s3://studies/none"):
        open_store("s3://studies/none")
    with pytest.raises(UserError, match="names no bucket"):
        open_store("s3:///x")


def test_without_obstore_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch):
    import sys

    monkeypatch.setitem(sys.modules, "obstore", None)
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    monkeypatch.setitem(sys.modules, "obstore.exceptions", None)
    with pytest.raises(SetupError, match=r"needs obstore.*\n.*pip install 'actionprep\[s3\]'"):
        open_store(URL)
