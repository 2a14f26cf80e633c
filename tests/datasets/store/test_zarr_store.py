"""The store writes complete items, detects every damaged byte and reads back what was written."""

from __future__ import annotations

import errno
import hashlib
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import zarr
from damaged_bytes import flip
from hypothesis import given, settings
from hypothesis import strategies as st

from actionprep.datasets.store.keys import Damage, ItemKey
from actionprep.datasets.store.metadata import root_text
from actionprep.datasets.store.reader import DamagedItemError, ZarrArrayReader
from actionprep.datasets.store.zarr_store import DamagedStore, Store
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
        (("a", "b"), ("a/b", "c")),  # an item exists where a folder is needed
        (("a/b", "c"), ("a", "b")),  # and the other way round
        (("a", "b"), ("a/b/c/d", "e")),
        (("a", ""), ("a", "x")),  # the required folder is an array of the old item
    ],
)
def test_store_replaces_an_item_of_another_catalog(store: Store, before, after) -> None:
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
    assert store.items() == [lost, cut, kept]
    assert store.intact(store.items()) == [kept]
    result = {key: damage is not None for key, damage in store.verify()}
    assert result == {lost: True, cut: True, kept: False}
    with pytest.raises(
        DamagedItemError, match=r"m/a/0: its metadata \(zarr.json\) is lost .* Run 'actionprep verify --repair'"
    ):
        store.digest()


def test_digest_depends_on_content_not_chunks_codec_or_order(tmp_path: Path) -> None:
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
        [(result, damage)] = list(Store(store.url).verify())
        assert result == key
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
    assert Store(f"file://{store.path}").path == store.path
    remote = Store(f"local://{store.path}")
    assert remote.items() == store.items()
    assert remote.digest() == store.digest()
    assert np.array_equal(remote.item("frames", "kitchen/seq.01", "0")["rgb"][2:5], values[2:5])
    with pytest.raises(UserError, match="is read-only"), remote.write("m", "r", fingerprint="f", provenance={}):
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
    path.write_text(root_text(99))
    with pytest.raises(UserError, match=r"written with schema 99; this actionprep knows schemas up to 2"):
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

    monkeypatch.setattr("actionprep.datasets.store.zarr_store.sync_tree", no_room)
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


def metadata_files(store: Store) -> list[Path]:
    return sorted(path for path in store.path.rglob("zarr.json") if ".partial" not in path.parts)


def damage_of(store: Store) -> list[Damage]:
    return [damage for _, damage in Store(store.url, check_root=False).verify() if damage is not None]


def as_schema_1(store: Store) -> None:
    """Rewrite the metadata as in schema 1: without checksums."""
    for path in metadata_files(store):
        document = json.loads(path.read_text())
        if document["node_type"] == "group":
            for name in ("arrays", "metadata_sha256"):
                document["attributes"].pop(name, None)
            if "actionprep_schema" in document["attributes"]:
                document["attributes"]["actionprep_schema"] = 1
            path.write_text(json.dumps(document, indent=1, sort_keys=True))


def test_verify_finds_flip_of_every_metadata_byte(store: Store) -> None:
    key = put(store, "a/b", "0")
    generator = np.random.default_rng(3)
    for path in metadata_files(store):
        clean, place = path.read_bytes(), path.relative_to(store.path).as_posix()
        for at in range(len(clean)):
            path.write_bytes(flip(clean, at, int(generator.integers(8))))
            [damage] = damage_of(store)
            assert damage.place == (key.path if place.startswith(key.path) else place)
            assert "is not what was written" in damage.reason or "is lost or cannot be read" in damage.reason
        path.write_bytes(clean)
    assert damage_of(store) == []


def test_readers_refuse_flipped_item_metadata(store: Store) -> None:
    key = put(store, "a", "0")
    path = store.path / key.path / "zarr.json"
    clean, generator = path.read_bytes(), np.random.default_rng(4)
    for at in generator.permutation(len(clean))[:150]:
        path.write_bytes(flip(clean, int(at), int(generator.integers(8))))
        for read in (store.metadata, store.fingerprint, lambda key: Store(store.url).item(key.product, "a", "0")):
            with pytest.raises(DamagedItemError, match=r"Damaged item m/a/0: .*Run 'actionprep verify --repair'"):
                read(key)
        assert store.items() == [key]
        assert store.intact([key]) == []


def test_flipped_array_metadata_is_never_read(store: Store) -> None:
    key = put(store, "a", "0")
    path = store.path / key.path / "x/zarr.json"
    clean, generator = path.read_bytes(), np.random.default_rng(5)
    for at in generator.permutation(len(clean))[:200]:
        path.write_bytes(flip(clean, int(at), int(generator.integers(8))))
        for url in (store.url, f"file://{store.path}"):
            with pytest.raises(
                DamagedItemError, match=r"Damaged array m/a/0/x: its metadata \(zarr.json\) is not what was"
            ):
                Store(url).item("m", "a", "0")["x"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("data_type", "bloat64"), ("data_type", 3), ("data_type", "float32"), ("shape", [-3]), ("shape", "3"), ("shape", [3, 1]),
        ("shape", [10**9]), ("dimension_names", 5), ("dimension_names", ["t", "u"]), ("attributes", []), ("codecs", []),
        ("codecs", [{"name": "gzip"}]), ("chunk_grid", {}), ("chunk_grid", None), ("chunk_key_encoding", {}),
    ],
)  # fmt: skip
def test_verify_survives_wrong_array_metadata_without_checksum(store: Store, name: str, value: object) -> None:
    key, kept = put(store, "a", "0"), put(store, "b", "0")
    as_schema_1(store)
    path = store.path / key.path / "x/zarr.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))
    result = {each: damage is not None for each, damage in Store(store.url).verify()}
    assert result == {key: True, kept: False}


def test_verify_survives_flips_in_metadata_without_checksum(store: Store) -> None:
    put(store, "a/b", "0")
    as_schema_1(store)
    generator = np.random.default_rng(6)
    for path in metadata_files(store):
        if path.parent == store.path:
            continue
        clean = path.read_bytes()
        for at in generator.permutation(len(clean))[:40]:
            path.write_bytes(flip(clean, int(at), int(generator.integers(8))))
            damage_of(store)  # not all are detected; none crashes the check
        path.write_bytes(clean)
    assert damage_of(store) == []


def test_store_of_schema_1_is_read_and_counted(store: Store) -> None:
    keys = [put(store, "a", "0"), put(store, "b", "0")]
    before = store.digest()
    as_schema_1(store)
    old = Store(store.url)
    assert old.digest() == before
    assert [damage for _, damage in old.verify()] == [None, None]
    assert old.without_checksum() == keys
    put(old, "b", "0")
    assert old.without_checksum() == keys[:1]
    assert json.loads((store.path / "zarr.json").read_text())["attributes"]["actionprep_schema"] == 2
    assert damage_of(old) == []
    assert Store(store.url).digest() == before


def test_checksum_of_item_metadata_is_plain_sha256(store: Store) -> None:
    key = put(store, "a", "0")
    raw = (store.path / key.path / "zarr.json").read_bytes()
    attributes = json.loads(raw)["attributes"]
    recorded = attributes["metadata_sha256"]
    assert hashlib.sha256(raw.replace(recorded.encode(), b"0" * 64)).hexdigest() == recorded
    array = (store.path / key.path / "x/zarr.json").read_bytes()
    assert attributes["arrays"] == {"x": hashlib.sha256(array).hexdigest()}


def test_item_at_another_path_is_damage(store: Store) -> None:
    key = put(store, "a", "0")
    (store.path / key.path).rename(store.path / "m/a/1")
    [damage] = damage_of(store)
    assert damage.key == ItemKey("m", "a", "1")
    assert damage.reason == "Damaged item m/a/1: its metadata names another item, 'm/a/0'."


def test_missing_array_metadata_and_folder_metadata_are_damage(store: Store) -> None:
    key = put(store, "a", "0")
    (store.path / key.path / "x/zarr.json").unlink()
    (store.path / "m/zarr.json").unlink()
    assert [(entry.place, entry.reason) for entry in damage_of(store)] == [
        ("m/zarr.json", "Damaged folder: m/zarr.json is not what was written."),
        ("m/a/0", "Damaged array m/a/0/x: its metadata (zarr.json) is missing."),
    ]
    store.repair_folders(damage_of(store))
    assert [entry.place for entry in damage_of(store)] == ["m/a/0"]


def test_damaged_root_is_refused_and_repaired(store: Store) -> None:
    put(store, "a", "0")
    path = store.path / "zarr.json"
    clean = path.read_bytes()
    for damaged in (
        clean.replace(b'schema": 2', b'schema": 3'),
        clean.replace(b"actionprep_", b"actionprdp_"),
        clean[:40],
        b"",
    ):
        path.write_bytes(damaged)
        with pytest.raises(
            DamagedStore, match=r"zarr.json, the metadata of the store's root, is damaged.*\n'actionprep ver"
        ):
            Store(store.url)
        [damage] = damage_of(store)
        assert (damage.place, damage.is_folder) == ("zarr.json", True)
        Store(store.url, check_root=False).repair_folders([damage])
        assert path.read_bytes() == clean


def test_damaged_metadata_behind_a_url_is_found(store: Store) -> None:
    key, kept = put(store, "a", "0"), put(store, "b", "0")
    path = store.path / key.path / "zarr.json"
    path.write_text(path.read_text().replace('"fingerprint": "f"', '"fingerprint": "g"'))
    (store.path / kept.path / "x/zarr.json").write_text("{")
    result = {each: damage.reason for each, damage in Store(f"file://{store.path}").verify() if damage}
    assert result == {
        key: "Damaged item m/a/0: its metadata (zarr.json) is not what was written.",
        kept: "Damaged array m/b/0/x: its metadata (zarr.json) is not what was written.",
    }
