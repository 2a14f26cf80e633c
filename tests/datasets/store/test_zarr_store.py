"""The store keeps whole items, notices every damaged byte, and reads back what was written."""

from __future__ import annotations

import errno
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from actionprep.datasets.store.reader import DamagedItemError, ZarrArrayReader
from actionprep.datasets.store.zarr_store import ItemKey, Store
from actionprep.errors import SetupError, UserError


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", create=True)


def write(store: Store, values: np.ndarray, *, view: str = "0", codec: str = "raw", chunk: int = 3) -> ItemKey:
    with store.write("frames", "kitchen/seq.01", view, fingerprint="f1", provenance={"stage": "frames"}) as item:
        item.create("rgb", shape=values.shape[1:], dtype=values.dtype, axes=("t", "c"), chunk=chunk, codec=codec)
        for row in values:
            item.append("rgb", row[None])
        item.write("time", np.arange(len(values)) / 30, axes=("t",), unit="s")
        item.attributes["fps"] = 30
    return ItemKey("frames", "kitchen/seq.01", view)


@pytest.mark.parametrize("codec", ["raw", "zstd"])
def test_what_is_written_is_read_back_by_us_and_by_plain_zarr(store: Store, codec: str) -> None:
    values = np.random.default_rng(0).integers(0, 255, (11, 5), np.uint8)
    key = write(store, values, codec=codec)
    item = store.item("frames", "kitchen/seq.01", "0")
    assert np.array_equal(item["rgb"][:], values)
    assert np.array_equal(item["rgb"][3:9], values[3:9])
    assert item.attributes == {"fps": 30}
    group = zarr.open_group(store.url, mode="r")
    assert np.array_equal(group[key.path]["rgb"][:], values)
    assert group[key.path]["time"].attrs["unit"] == "s"
    assert group[key.path]["rgb"].metadata.dimension_names == ("t", "c")


@settings(max_examples=20, deadline=None)
@given(
    rows=st.integers(0, 23),
    chunk=st.integers(1, 7),
    picks=st.lists(st.integers(-30, 30), max_size=9),
    cut=st.tuples(st.integers(-30, 30), st.integers(-30, 30), st.sampled_from([1, 2, -1])),
)
def test_indexing_equals_numpy(tmp_path_factory: pytest.TempPathFactory, rows, chunk, picks, cut) -> None:
    store = Store(tmp_path_factory.mktemp("s") / "store", create=True)
    values = np.arange(rows * 4, dtype=np.float32).reshape(rows, 4)
    write(store, values, chunk=chunk)
    array = store.item("frames", "kitchen/seq.01", "0")["rgb"]
    start, stop, step = cut
    assert np.array_equal(array[start:stop:step], values[start:stop:step])
    assert np.array_equal(array[start:stop, 1:3], values[start:stop, 1:3])
    picks = [at for at in picks if -rows <= at < rows]
    assert np.array_equal(array[np.array(picks, int)], values[np.array(picks, int)])
    if rows:
        assert np.array_equal(array[-1], values[-1])
        with pytest.raises(IndexError, match=f"which has {rows} rows"):
            array[rows]


def test_shards_are_cut_by_size_and_hold_many_chunks(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actionprep.datasets.store.writer.SHARD_BYTES", 8 * 5)
    values = np.random.default_rng(0).integers(0, 255, (21, 5), np.uint8)
    key = write(store, values, chunk=2)
    files = sorted((store.path / key.path / "rgb").rglob("c/*/0"))
    assert [path.parent.name for path in files] == ["0", "1", "2"]
    assert np.array_equal(store.item("frames", "kitchen/seq.01", "0")["rgb"][:], values)


def test_an_item_is_not_there_until_its_block_ends_well(store: Store) -> None:
    def stop_half_way() -> None:
        with store.write("m", "r", "0", fingerprint="f", provenance={}) as item:
            item.write("x", np.zeros(3), axes=("t",))
            assert not store.has("m", "r", "0")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        stop_half_way()
    assert not store.has("m", "r", "0")
    assert store.items() == []
    assert not list((store.path / ".partial").iterdir())


def test_a_new_item_replaces_the_old_one_whole(store: Store) -> None:
    write(store, np.zeros((9, 2), np.uint8))
    write(store, np.ones((4, 2), np.uint8))
    assert store.item("frames", "kitchen/seq.01", "0")["rgb"].shape == (4, 2)
    assert len(store.items()) == 1


def put(store: Store, recording: str, view: str = "", *, name: str = "x") -> ItemKey:
    with store.write("m", recording, view, fingerprint="f", provenance={}) as item:
        item.write(name, np.arange(3.0), axes=("t",))
    return ItemKey("m", recording, view)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (("a", "b"), ("a/b", "c")),  # an item lies where a folder is needed now
        (("a/b", "c"), ("a", "b")),  # and the other way round
        (("a", "b"), ("a/b/c/d", "e")),
        (("a", ""), ("a", "x")),  # the folder that is needed is an array of the old item
    ],
)
def test_an_item_of_another_catalog_neither_hides_a_new_one_nor_stays_in_it(store: Store, before, after) -> None:
    put(store, *before)
    store.item("m", *before)
    kept = put(store, "other", "0")
    key = put(store, *after)
    assert store.items() == sorted([key, kept])
    assert not store.has("m", *before)
    assert [damage for _, damage in store.verify()] == [None, None]
    group = zarr.open_group(store.url, mode="r")
    assert group[key.path]["x"][:].tolist() == [0, 1, 2]
    assert all(node.metadata.node_type == "group" for node in (group["m"], group["m/a"]))


def test_metadata_that_is_lost_or_is_not_an_items_is_damage(store: Store) -> None:
    lost, cut, kept = put(store, "a", "0"), put(store, "b/c", "1"), put(store, "d", "0")
    (store.path / lost.path / "zarr.json").unlink()
    document = json.loads((store.path / cut.path / "zarr.json").read_text())
    del document["attributes"]["item"]
    (store.path / cut.path / "zarr.json").write_text(json.dumps(document))
    assert store.items() == [kept]
    found = {key: damage is not None for key, damage in store.verify()}
    assert found == {lost: True, cut: True, kept: False}
    with pytest.raises(
        DamagedItemError,
        match=r"Damaged item m/a/0: its metadata is lost or cannot be read. 'actionprep verify --repair'",
    ):
        store.digest()


def test_the_digest_tells_content_not_chunks_codec_or_order(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 255, (11, 5), np.uint8)
    stores = [Store(tmp_path / name, create=True) for name in "abc"]
    write(stores[0], values, view="0", chunk=2)
    write(stores[0], values, view="1", chunk=2)
    write(stores[1], values, view="1", chunk=5, codec="zstd")
    write(stores[1], values, view="0", chunk=5, codec="zstd")
    assert stores[0].digest() == stores[1].digest()
    values[7, 3] += 1
    write(stores[2], values, view="0")
    write(stores[2], values, view="1")
    assert stores[2].digest() != stores[0].digest()


@pytest.mark.parametrize("codec", ["raw", "zstd"])
def test_every_flipped_bit_is_found_and_never_returned(store: Store, codec: str) -> None:
    values = np.random.default_rng(1).integers(0, 255, (40, 50), np.uint8)
    key = write(store, values, codec=codec, chunk=8)
    files = [path for path in (store.path / key.path).rglob("c/*") if path.is_file()]
    generator = np.random.default_rng(2)
    for _ in range(30):
        path = files[generator.integers(len(files))]
        clean = path.read_bytes()
        at = int(generator.integers(len(clean)))
        path.write_bytes(clean[:at] + bytes([clean[at] ^ (1 << int(generator.integers(8)))]) + clean[at + 1 :])
        [(found, damage)] = list(Store(store.url).verify())
        assert found == key
        assert damage is not None
        name = path.relative_to(store.path / key.path).parts[0]
        with pytest.raises(DamagedItemError, match="Damaged array"):
            Store(store.url).item("frames", "kitchen/seq.01", "0")[name][:]
        path.write_bytes(clean)
    assert [damage for _, damage in Store(store.url).verify()] == [None]


def test_cut_and_missing_files_are_damage(store: Store) -> None:
    key = write(store, np.ones((40, 50), np.uint8))
    shard = next((store.path / key.path / "rgb").rglob("c/0/0"))
    clean = shard.read_bytes()
    for damaged in (clean[:10], clean[: len(clean) // 2], b""):
        shard.write_bytes(damaged)
        [(_, damage)] = list(Store(store.url).verify())
        assert damage is not None
    shard.unlink()
    [(_, damage)] = list(Store(store.url).verify())
    assert damage is not None
    assert "is missing or empty" in damage.reason


def test_changed_attributes_are_damage(store: Store) -> None:
    key = write(store, np.ones((4, 5), np.uint8))
    path = store.path / key.path / "zarr.json"
    document = json.loads(path.read_text())
    document["attributes"]["stage"]["fps"] = 25
    path.write_text(json.dumps(document))
    [(_, damage)] = list(Store(store.url).verify())
    assert damage is not None
    assert "is not what was written" in damage.reason


def test_arrays_of_other_writers_are_read_through_zarr(store: Store) -> None:
    key = write(store, np.ones((4, 5), np.uint8))
    group = zarr.open_group(str(store.path / key.path), mode="a")
    group.create_array("other", data=np.arange(12).reshape(4, 3), chunks=(2, 2))
    array = Store(store.url).item("frames", "kitchen/seq.01", "0")["other"]
    assert isinstance(array, ZarrArrayReader)
    assert np.array_equal(array[1:3], np.arange(12).reshape(4, 3)[1:3])


def test_a_store_behind_a_url_reads_the_same(store: Store) -> None:
    values = np.random.default_rng(0).integers(0, 255, (11, 5), np.uint8)
    write(store, values)
    store.clear_partial()
    remote = Store(f"file://{store.path}")
    assert remote.items() == store.items()
    assert remote.digest() == store.digest()
    assert np.array_equal(remote.item("frames", "kitchen/seq.01", "0")["rgb"][2:5], values[2:5])
    with pytest.raises(UserError, match="can only be read"), remote.write("m", "r", fingerprint="f", provenance={}):
        pass


def test_readers_travel_to_other_processes(store: Store) -> None:
    values = np.arange(20, dtype=np.float32).reshape(10, 2)
    write(store, values)
    item = store.item("frames", "kitchen/seq.01", "0")
    item["rgb"][0]
    assert np.array_equal(pickle.loads(pickle.dumps(item))["rgb"][:], values)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files are counted in /proc")
def test_readers_of_many_large_files_hold_few_open(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actionprep.datasets.store.writer.SHARD_BYTES", 8 * 5)
    monkeypatch.setattr("actionprep.datasets.store.reader.SMALL_FILE_BYTES", 0)
    monkeypatch.setattr("actionprep.datasets.store.reader.MAX_OPEN_FILES", 6)
    values = np.random.default_rng(0).integers(0, 255, (160, 5), np.uint8)
    for view in "01":
        write(store, values, view=view, chunk=2)
    items = [store.item("frames", "kitchen/seq.01", view) for view in "01"]
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(2):
        for item in items:
            assert np.array_equal(item["rgb"][:], values)
            assert np.array_equal(np.stack([item["rgb"][at] for at in range(160)]), values)
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 6


def test_a_newer_schema_is_refused(store: Store) -> None:
    path = store.path / "zarr.json"
    path.write_text(path.read_text().replace('"actionprep_schema": 1', '"actionprep_schema": 99'))
    with pytest.raises(UserError, match=r"written with schema 99; this actionprep knows schemas up to 1"):
        Store(store.url)


def test_what_is_not_a_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No store at"):
        Store(tmp_path / "nothing")
    zarr.open_group(str(tmp_path / "foreign"), mode="w")
    with pytest.raises(UserError, match="not a store of actionprep"):
        Store(tmp_path / "foreign")


def test_a_missing_item_is_named_with_those_that_are_there(store: Store) -> None:
    write(store, np.ones((4, 5), np.uint8))
    with pytest.raises(UserError, match=r"No 'frames' of view '7' .*It has views 0\."):
        store.item("frames", "kitchen/seq.01", "7")
    with pytest.raises(UserError, match=r"has no product 'tracks'\. It has frames\."):
        store.item("tracks", "kitchen/seq.01", "0")


def test_a_full_disk_is_explained_and_harms_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    write(store, np.ones((4, 5), np.uint8), view="0")

    def no_room(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("actionprep.datasets.store.zarr_store._sync_tree", no_room)
    with pytest.raises(SetupError, match="Free some space, then run the same command again"):
        write(store, np.ones((4, 5), np.uint8), view="1")
    monkeypatch.undo()
    assert [key.view for key in store.items()] == ["0"]
    assert [damage for _, damage in store.verify()] == [None]
    write(store, np.ones((4, 5), np.uint8), view="1")


def test_a_read_only_disk_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(tmp_path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(SetupError, match=r"Cannot write to .*Read-only file system"):
        Store(tmp_path / "store", create=True)


@pytest.mark.parametrize("codec", ["raw", "zstd"])
@pytest.mark.parametrize("dtype", ["uint8", "bool", "int64", "float32", "float64", "int16"])
def test_array_metadata_is_what_zarr_itself_would_write(store: Store, tmp_path: Path, dtype: str, codec: str) -> None:
    from zarr.codecs import Crc32cCodec, ZstdCodec

    with store.write("p", "r", fingerprint="f", provenance={}) as item:
        item.create("grown", shape=(2, 3), dtype=dtype, axes=("t", "y", "x"), unit="px", chunk=4, codec=codec)
        item.append("grown", np.ones((9, 2, 3), dtype))
        item.write("whole", np.ones((5, 2), dtype), axes=("t", "c"), codec=codec, description="ones")
    compressors = [ZstdCodec(level=3), Crc32cCodec()] if codec == "zstd" else [Crc32cCodec()]
    group = zarr.create_group(str(tmp_path / "theirs"))
    for name, shape, chunks, shards, axes, attributes in (
        ("grown", (9, 2, 3), (4, 2, 3), (4 * 256, 2, 3), ("t", "y", "x"), {"unit": "px"}),
        ("whole", (5, 2), (5, 2), None, ("t", "c"), {"description": "ones"}),
    ):
        group.create_array(
            name, shape=shape, chunks=chunks, shards=shards, dtype=dtype, compressors=compressors, fill_value=0,
            dimension_names=axes, attributes=attributes,
        )  # fmt: skip
        ours, theirs = (
            json.loads((place / name / "zarr.json").read_text())
            for place in (Path(store.url) / "p" / "r", tmp_path / "theirs")
        )
        assert ours == theirs
