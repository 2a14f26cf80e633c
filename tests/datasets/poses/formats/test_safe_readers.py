"""Reading npz and pickle files that are hostile, damaged or old."""

from __future__ import annotations

import io
import os
import pickle
import pickletools
import struct
import subprocess
import tracemalloc
import zipfile

import numpy as np
import pytest
from pose_h5_files import jabs_file
from scipy.io import loadmat, savemat

from actionprep.datasets import hdf5_loops, safe_mat
from actionprep.datasets.poses.formats import read_poses, safe_npz, safe_pickle
from actionprep.datasets.poses.formats.safe_npz import load_npz
from actionprep.datasets.poses.formats.safe_pickle import StoredArray, in_memory, load_pickle
from actionprep.datasets.safe_mat import load_mat
from actionprep.errors import InputError, UserError

DATA = {
    "split": {"train": ["a.b.c", "d"], "val": []},
    "annotations": [
        {
            "frame_dir": "a.b.c",
            "total_frames": np.int64(3),
            "label": 7,
            "keypoint": np.linspace(0, 1, 2 * 3 * 17 * 2).reshape(2, 3, 17, 2).astype(np.float16),
            "names": np.array(["left", "right"]),
            "big": np.arange(5, dtype=">i4"),
            "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
            "img_shape": (1080, 1920),
            "more": [None, True, 1.5, b"bytes", {1, 2}, np.float32(0.1)],
        }
    ],
}


def same(a, b):
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def write(tmp_path, content):
    path = tmp_path / "file.pkl"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_comes_back_exactly_in_every_protocol(tmp_path, protocol):
    assert same(DATA, load_pickle(write(tmp_path, pickle.dumps(DATA, protocol))))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_large_arrays_stay_in_the_file_until_they_are_read(tmp_path, protocol):
    large = {
        **DATA,
        # Larger and smaller than a frame of protocol 4, all byte values, Fortran order, long text.
        "whole": np.arange(40_000, dtype=np.int64),
        "bytes": np.arange(2048).astype(np.uint8).reshape(4, 512),
        "fortran": np.asfortranarray(np.arange(600.0).reshape(20, 30)),
        "text": "ä" * 3000,
        "words": {"a" * 600},
        "raw": b"\xff" * 700,
    }
    result = load_pickle(write(tmp_path, pickle.dumps(large, protocol)), later=True)
    assert same(large, in_memory(result))
    # Protocol 0 has no lengths, so the content is read at once.
    if protocol:
        assert isinstance(result["whole"], StoredArray)
        assert (result["whole"].shape, result["whole"].dtype) == ((40_000,), np.int64)


def test_a_data_set_takes_the_memory_of_its_names(tmp_path):
    path = write(tmp_path, pickle.dumps([np.full(1_000_000, index, np.float16) for index in range(10)], 4))
    tracemalloc.start()
    try:
        arrays = load_pickle(path, later=True)
        assert [float(entry.read()[-1]) for entry in arrays] == list(range(10))
        # Only one of the ten arrays at a time, and its read buffer.
        assert tracemalloc.get_traced_memory()[1] < 6e6
    finally:
        tracemalloc.stop()


def test_npz_that_shrinks_before_an_array_is_read_is_reported(tmp_path):
    path = write(tmp_path, pickle.dumps(np.arange(1000), 4))
    array = load_pickle(path, later=True)
    path.write_bytes(path.read_bytes()[:4000])
    with pytest.raises(InputError, match=r"file\.pkl has become shorter since it was opened"):
        array.read()


def test_an_array_whose_bytes_do_not_fill_it_is_refused_when_it_is_read(tmp_path):
    # Protocol 2 writes bytes as text of another length.
    content = pickle.dumps(np.arange(200, dtype=np.float64), 2).replace(b"K\xc8\x85", b"K\xc9\x85", 1)
    array = load_pickle(write(tmp_path, content), later=True)
    with pytest.raises(
        InputError, match=r"an array of shape \(201,\) of float64 with 1600 bytes of data, which is not"
    ):
        array.read()


def test_pickles_of_older_numpy_are_read(tmp_path):
    # Protocol 0 has no lengths before names, so they need no change.
    content = pickle.dumps(DATA, 0).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert b"numpy._core" not in content
    assert same(DATA, load_pickle(write(tmp_path, content)))


def test_arrays_that_are_shared_stay_shared_and_loops_end(tmp_path):
    array = np.arange(3)
    loop: dict = {"a": array, "b": array}
    loop["self"] = loop
    result = load_pickle(write(tmp_path, pickle.dumps(loop)))
    assert result["a"] is result["b"]
    assert result["self"] is result


class Calls:
    def __init__(self, function, *arguments):
        self.what = (function, arguments)

    def __reduce__(self):
        return self.what


class Sets:
    def __reduce__(self):
        return (dict, (), {"a": 1})


def harmful(tmp_path):
    witness = tmp_path / "harm"
    yield "system", pickle.dumps(Calls(os.system, f"touch {witness}"))
    yield "eval", pickle.dumps(Calls(eval, f"open({str(witness)!r}, 'w')"))
    yield "nested", pickle.dumps({"annotations": [np.array([Calls(os.system, f"touch {witness}")], dtype=object)]})
    yield "object array", pickle.dumps(np.array([{"a": 1}], dtype=object))
    yield "class", pickle.dumps(Calls)
    yield "state", pickle.dumps(Sets())
    yield "old instance", b"(S'touch " + str(witness).encode() + b"'\nios\nsystem\n."
    yield "old object", b"(cos\nsystem\nS'touch " + str(witness).encode() + b"'\no."
    yield "getattr", b"cnumpy\nndarray\n(Vx\ntR."
    yield "structured", pickle.dumps(np.zeros(2, [("a", "f4")]))
    yield "persistent", b"Pabc\n."
    yield "extension", b"\x82\x01."
    yield "bad codec", b"c_codecs\nencode\n(Vx\nVrot13\ntR."
    yield "build on a function", b"c_codecs\nencode\n}Vx\nI1\nsb."
    yield "build on a class", b"cnumpy\nndarray\n}Vx\nI1\nsb."


def test_nothing_in_a_pickle_ever_runs(tmp_path):
    for name, content in harmful(tmp_path):
        with pytest.raises(InputError):
            load_pickle(write(tmp_path, content))
        with pytest.raises(InputError):
            load_pickle(write(tmp_path, content), later=True)
        assert not (tmp_path / "harm").exists(), name


def test_a_refused_pickle_names_what_it_wanted(tmp_path):
    path = write(tmp_path, pickle.dumps(Calls(os.system, "true")))
    with pytest.raises(InputError) as caught:
        load_pickle(path)
    assert str(caught.value) == (
        f"{path} names posix.system, which is not data: loading it with Python's pickle would run code. "
        "Only numpy arrays, plain containers, numbers and strings are read."
    )


def forged():
    array = pickle.dumps(np.arange(100, dtype=np.float64), 2)
    yield "memo index", b"\x80\x02}r\xff\xff\xff\x7f."
    yield "bytes length", b"\x80\x04\x8e" + struct.pack("<Q", 1 << 38) + b"x."
    yield "string length", b"\x80\x04\x8d" + struct.pack("<Q", 1 << 38) + b"x."
    yield "frame length", b"\x80\x04\x95" + struct.pack("<Q", 1 << 38) + b"."
    yield "array shape", array.replace(b"Kd", b"J\xff\xff\xff\x7f", 1)
    yield "reconstructed shape", b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(J\xff\xff\xff\x7ftVb\ntR."
    yield "empty strings", b"cnumpy.core.numeric\n_frombuffer\n(C\x00cnumpy\ndtype\n(VS0\ntR(J\xff\xff\xff\x7ftVC\ntR."
    yield "deep", b"(" * 3000 + b"l" * 3000 + b"."
    yield "deep lists", b"]" * 3000 + b"a" * 2999 + b"."


@pytest.mark.parametrize(("name", "content"), list(forged()), ids=[name for name, _ in forged()])
def test_forged_lengths_take_no_memory(tmp_path, name, content):
    path = write(tmp_path, content)
    tracemalloc.start()
    try:
        if name == "memo index":
            assert load_pickle(path) == {}
        else:
            with pytest.raises(InputError):
                load_pickle(path)
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()


def bombs():
    text = b"X" + struct.pack("<I", 100_000) + b"a" * 100_000 + b"q\x00"
    encode = b"c_codecs\nencode\nq\x01"
    # One text of 100 kB, and 10,000 calls that convert it to bytes.
    yield "encoded text", b"\x80\x02" + text + encode + b"]" + b"h\x01h\x00\x85Ra" * 10_000 + b"."
    # A set of 10,000 numbers and 10,000 copies of it.
    numbers = b"(" + b"".join(b"M" + struct.pack("<H", n) for n in range(10_000)) + b"lq\x00"
    yield "copied lists", b"\x80\x02" + numbers + b"cbuiltins\nset\nq\x01]" + b"h\x01h\x00\x85Ra" * 10_000 + b"."


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize(("name", "content"), list(bombs()), ids=[name for name, _ in bombs()])
def test_pickle_that_unfolds_is_refused(tmp_path, monkeypatch, name, content, later):
    monkeypatch.setattr(safe_pickle, "_MAX_STEPS", 300_000)
    path = write(tmp_path, content)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=r"describes more than .* It was not read"):
            load_pickle(path, later=later)
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()


def test_pickle_array_that_is_listed_often_is_read_once(tmp_path):
    array = np.arange(100_000)
    result = in_memory(load_pickle(write(tmp_path, pickle.dumps([array] * 1000)), later=True))
    assert len(result) == 1000
    assert result[0] is result[-1]


@pytest.mark.parametrize("later", [False, True])
def test_a_pickle_cut_anywhere_is_refused(tmp_path, later):
    content = pickletools.optimize(pickle.dumps({**DATA, "large": np.arange(200)}, 4))
    for end in range(0, len(content) - 1, 17 if later else 7):
        with pytest.raises(InputError, match=r"file\.pkl"):
            load_pickle(write(tmp_path, content[:end]), later=later)


@pytest.mark.parametrize(("later", "protocol"), [(False, 4), (True, 2), (True, 4)])
def test_random_bytes_never_do_more_than_be_refused(tmp_path, later, protocol):
    rng = np.random.default_rng(0)
    content = bytearray(pickle.dumps({**DATA, "large": np.arange(200)}, protocol))
    for _ in range(300):
        broken = content.copy()
        for place in rng.integers(0, len(broken), 3):
            broken[place] = rng.integers(256)
        try:
            in_memory(load_pickle(write(tmp_path, bytes(broken)), later=later))
        except InputError:
            continue


def test_a_pickle_that_is_not_there_is_the_users_mistake(tmp_path):
    with pytest.raises(UserError, match="No pickle file at"):
        load_pickle(tmp_path / "gone.pkl")


def npz(tmp_path, **arrays):
    path = tmp_path / "file.npz"
    np.savez_compressed(path, **arrays)
    return path


def test_npz_arrays_come_back_and_only_those_named(tmp_path):
    path = npz(tmp_path, a=np.arange(4), b=np.array("text"), c=np.zeros((2, 0), np.float16))
    result = load_npz(path)
    assert list(result) == ["a", "b", "c"]
    assert result["a"].tolist() == [0, 1, 2, 3]
    assert str(result["b"]) == "text"
    assert list(load_npz(path, ["b"])) == ["b"]


def test_npz_objects_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"Array 'a' in .* holds Python objects, which only a pickle could load"):
        load_npz(npz(tmp_path, a=np.array([{}], dtype=object)))


def test_a_member_that_is_not_there_is_named_with_those_that_are(tmp_path):
    with pytest.raises(InputError, match=r"holds no array 'x'\. It holds a, b\."):
        load_npz(npz(tmp_path, a=np.arange(2), b=np.arange(2)), ["x"])


def test_arrays_over_the_limit_are_not_unpacked(tmp_path):
    path = npz(tmp_path, a=np.zeros((1000, 1000)))
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=r"declares 0.0 GiB of arrays up to 'a'; .* Nothing was unpacked"):
            load_npz(path, max_bytes=1_000_000)
        assert tracemalloc.get_traced_memory()[1] < 3e6
    finally:
        tracemalloc.stop()


def test_a_header_that_declares_more_than_the_archive_holds_is_refused(tmp_path):
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(1000, np.uint8))
    content = buffer.getvalue().replace(b"(1000,)", b"(9**9,)")
    forged = buffer.getvalue().replace(b"(1000,), }        ", b"(100000000000,), }")
    assert len(forged) == len(buffer.getvalue())
    for name, member in (("forged", forged), ("code", content)):
        path = tmp_path / f"{name}.npz"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.npy", member)
        with pytest.raises(InputError, match=r"Array 'a' in|not a sound"):
            load_npz(path)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 0.99])
def test_an_npz_cut_short_is_refused(tmp_path, share):
    path = npz(tmp_path, a=np.random.default_rng(0).random(1000))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InputError, match="not a sound npz"):
        load_npz(path)


def test_an_npz_with_flipped_bytes_is_refused(tmp_path):
    path = npz(tmp_path, a=np.random.default_rng(0).random(1000))
    content = bytearray(path.read_bytes())
    content[2000] ^= 255
    path.write_bytes(bytes(content))
    with pytest.raises(InputError, match="not a sound npz"):
        load_npz(path)


def test_an_npz_that_is_not_there_is_the_users_mistake(tmp_path):
    with pytest.raises(UserError, match="No npz file at"):
        load_npz(tmp_path / "gone.npz")


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dtype", ["f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"])
def test_mat_arrays_equal_those_of_scipy(tmp_path, dtype, packed):
    values = np.random.default_rng(0).uniform(0, 100, (2, 15, 7)).astype(dtype)
    content = {"a": values, "whole": np.arange(6.0).reshape(2, 3), "empty": np.zeros((0, 3)), "one": 5}
    savemat(tmp_path / "x.mat", {**content, "text": "NE", "cells": np.array([1, "b"], object)}, do_compression=packed)
    result, truth = load_mat(tmp_path / "x.mat"), loadmat(tmp_path / "x.mat")
    assert result.keys() == {*content, "text"}
    for name in content:
        assert result[name].dtype == truth[name].dtype
        assert np.array_equal(result[name], truth[name]), name
    assert result["text"].tolist() == truth["text"].tolist() == ["NE"]


@pytest.mark.parametrize("name", ["files_used.mat", "action_names.mat", "tr_te_splits.mat"])
def test_mat_of_real_data(shared_data, name):
    path = shared_data / "msr_action3d" / name
    result, truth = load_mat(path), loadmat(path)
    plain = {key for key, value in truth.items() if key[0] != "_" and value.dtype.kind in "fiu"}
    assert {key for key, value in result.items() if value.dtype.kind in "fiu"} == plain
    for key in plain:
        assert np.array_equal(result[key], truth[key])


def test_mat_of_hdf5_is_named(tmp_path):
    (tmp_path / "x.mat").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(500))
    with pytest.raises(InputError, match=r"x\.mat is not a readable Matlab file: it is a Matlab 7\.3 file \(HDF5\)"):
        load_mat(tmp_path / "x.mat")


def test_mat_cut_anywhere_is_refused_or_lacks_arrays(tmp_path):
    savemat(tmp_path / "x.mat", {"a": np.arange(40.0), "b": np.arange(9)})
    whole = (tmp_path / "x.mat").read_bytes()
    refused = 0
    for end in range(0, len(whole), 5):
        (tmp_path / "x.mat").write_bytes(whole[:end])
        try:
            assert load_mat(tmp_path / "x.mat").keys() < {"a", "b"}
        except InputError as problem:
            refused += "is not a readable Matlab file" in problem.reason
    assert refused > 50


def test_mat_that_unpacks_without_end_takes_no_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(safe_mat, "MAX_BYTES", 1 << 16)
    savemat(tmp_path / "x.mat", {"a": np.zeros(1 << 16)}, do_compression=True)
    with pytest.raises(InputError, match="a variable unpacks to more than 0 MiB"):
        load_mat(tmp_path / "x.mat")


def zeros_npz(path, count):
    np.savez_compressed(path, keypoints=np.zeros((count, 17, 2), np.float32))
    return path


def test_npz_of_zeros_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(safe_npz, "FREE_BYTES", 1 << 20)
    path = zeros_npz(tmp_path / "x.npz", 1 << 14)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=r"\d+ times as much; the limit is 64 times.*save it with numpy\.savez"):
            load_npz(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1 << 19
    np.savez(path, keypoints=np.zeros((1 << 14, 17, 2), np.float32))
    assert load_npz(path)["keypoints"].shape == (1 << 14, 17, 2)


def test_npz_texts_are_read_before_arrays(tmp_path):
    path = zeros_npz(tmp_path / "x.npz", 1 << 17)
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match="does not name its skeleton"):
            list(read_poses(path, "pose-npz"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


def test_npz_with_a_password_is_named(tmp_path):
    data = bytearray(npz(tmp_path, keypoints=np.zeros((2, 17, 2))).read_bytes())
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.find(mark) + at] |= 1
    (tmp_path / "x.npz").write_bytes(bytes(data))
    with pytest.raises(
        InputError, match=r"Array 'keypoints' in .*x\.npz is encrypted\. Save the file without a password"
    ):
        load_npz(tmp_path / "x.npz")


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'shape': (2,",
        "{'descr': [",
        "(" * 500,
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, -4)}",
    ],
)
def test_npy_header_that_is_none_is_named(tmp_path, header):
    text = header.encode().ljust(118) + b"\n"
    member = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(16)
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("a.npy", member)
    with pytest.raises(InputError, match=r"Array 'a' in .*x\.npz (does not hold a numpy array|declares the shape)"):
        load_npz(tmp_path / "x.npz")


def test_list_that_contains_itself_is_refused_in_memory(tmp_path):
    loop = [1]
    loop.append(loop)
    with pytest.raises(InputError, match="contains itself"):
        in_memory(load_pickle(write(tmp_path, pickle.dumps({"a": loop}))))
    shared = [1, 2]
    assert in_memory(load_pickle(write(tmp_path, pickle.dumps([shared, shared])))) == [[1, 2], [1, 2]]


def test_hdf5_files_on_which_the_library_loops_are_refused(tmp_path, monkeypatch):
    sound, endless = jabs_file(tmp_path / "a_pose_est_v2.h5"), jabs_file(tmp_path / "b_pose_est_v2.h5")
    checker = hdf5_loops._Checker()
    script = "import sys\nfor line in sys.stdin:\n    while 'b_pose' in line: pass\n    print('done', flush=True)\n"
    start = subprocess.Popen
    monkeypatch.setattr(
        hdf5_loops.subprocess, "Popen", lambda command, **pipes: start([command[0], "-c", script], **pipes)
    )
    monkeypatch.setattr(hdf5_loops, "_checker", checker)
    monkeypatch.setattr(hdf5_loops, "_CHECK_S", 0.5)
    for _ in range(2):
        with pytest.raises(
            InputError, match=r"b_pose_est_v2.h5 is not a sound HDF5 file: the HDF5 library crashed on its"
        ):
            list(read_poses(endless))
        assert len(list(read_poses(sound))) == 1
    assert checker._process is not None
    checker.stop()


def test_hdf5_check_reads_sound_and_damaged_files(tmp_path):
    checker = hdf5_loops._Checker()
    path = jabs_file(tmp_path / "a_pose_est_v2.h5")
    assert checker.ends(path)
    path.write_bytes(path.read_bytes()[:600])
    assert checker.ends(path), "damage that raises an error is for the reader"
    checker.stop()
