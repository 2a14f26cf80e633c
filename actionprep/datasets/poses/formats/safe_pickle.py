"""Read pickles of strangers: numpy arrays, plain containers, numbers and strings come out; nothing in them ever runs.

Python's own unpickler calls whatever a file names. This one knows the few functions that numpy's arrays and scalars are
made of, replaces them by its own, and refuses everything else. Array data is checked against its declared shape, and
may stay in the file until it is wanted.
"""

from __future__ import annotations

import math
import pickle
import struct
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from io import BufferedReader
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from actionprep.errors import InputError, UserError

_KINDS = "biufcSU"
_DEPTH = 64
# Data of at least so many bytes stays in the file where arrays are to be read later.
_LARGE = 512
# What a damaged pickle can make the machine stumble over.
_DAMAGE = (
    pickle.UnpicklingError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    AssertionError,
    OverflowError,
    MemoryError,
    RecursionError,
)


@dataclass(frozen=True)
class _InFile:
    """Bytes or text of a pickle, by their place in it."""

    path: Path
    at: int
    length: int
    kind: str  # bytes, bytearray, string (of Python 2), text, or encoded: bytes that are written as text

    def load(self) -> Any:
        """The value itself."""
        raw = self._raw()
        if self.kind == "text":
            return raw.decode("utf-8", "surrogatepass")
        if self.kind == "string":
            return raw.decode("latin-1")
        return bytearray(raw) if self.kind == "bytearray" else self.data()

    def data(self) -> bytes:
        """The bytes of an array."""
        raw = self._raw()
        return raw.decode("utf-8").encode("latin-1") if self.kind in ("text", "encoded") else raw

    def _raw(self) -> bytes:
        with self.path.open("rb") as file:
            file.seek(self.at)
            raw = file.read(self.length)
        if len(raw) != self.length:
            raise InputError(f"{self.path} has become shorter since it was opened.")
        return raw


@dataclass(frozen=True)
class StoredArray:
    """An array that is still in its pickle: `read` gives it."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    _order: str
    _data: _InFile

    def read(self) -> NDArray[Any]:
        """The array, read-only; InputError where its bytes do not fill its shape."""
        path = self._data.path
        try:
            return _filled(self._data.data(), self.dtype, self.shape, self._order)
        except (InputError, UnicodeError) as problem:
            what = problem.reason if isinstance(problem, InputError) else f"an array of damaged bytes ({problem})"
            raise InputError(f"{path} holds {what}, which is not read.") from None


def in_memory(value: Any) -> Any:
    """A value of `load_pickle` with every `StoredArray` in it read.

    Raises:
        InputError: If an array is damaged, or if a list or dict contains itself.
    """
    return _in_memory(value, {}, 0)


_UNFINISHED = object()


def _in_memory(value: Any, done: dict[int, Any], depth: int) -> Any:
    if isinstance(value, StoredArray):
        return value.read()
    if not isinstance(value, dict | list | tuple):
        return value
    if done.get(id(value)) is _UNFINISHED or depth > _DEPTH:
        raise InputError("A list or dict in the pickle contains itself, or lies too deep in others.")
    if id(value) not in done:
        done[id(value)] = _UNFINISHED
        if isinstance(value, dict):
            done[id(value)] = {key: _in_memory(part, done, depth + 1) for key, part in value.items()}
        else:
            done[id(value)] = type(value)(_in_memory(part, done, depth + 1) for part in value)
    return done[id(value)]


def load_pickle(path: str | Path, *, later: bool = False) -> Any:
    """What a pickle file holds, as numpy arrays, dicts, lists, tuples, sets, numbers, strings, bytes and None.

    Half-precision arrays stay half precision, value for value; arrays are read-only. Pickles of Python 2 are read with
    latin-1 strings, as numpy needs.

    later: leave large arrays in the file; each is a `StoredArray`, to be read when it is wanted, so that a data set of
    gigabytes takes the memory of its names.

    Raises UserError when there is no such file; InputError when the file names anything else (the name is in the
    message), is cut short, or declares arrays that its bytes do not fill.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"No pickle file at {path}.")
    with path.open("rb") as file:
        bounded = _Bounded(file, path.stat().st_size)
        reader = _LaterUnpickler(bounded, path) if later else _Unpickler(bounded, path)
        try:
            return _finished(reader.load(), str(path), {}, 0)
        except InputError:
            raise
        except _DAMAGE as error:
            raise InputError(
                f"{path} is not a sound pickle: {type(error).__name__} near byte {file.tell()}: {error}. "
                "The file is damaged or cut short; fetch it again."
            ) from None


class _Bounded:
    """A file that refuses to be asked for more than it holds, so that a forged length takes no memory."""

    def __init__(self, file: BufferedReader, size: int) -> None:
        self._file, self._size = file, size

    def read(self, count: int) -> bytes:
        self._check(count)
        return self._file.read(count)

    def readinto(self, buffer: Any) -> int:
        self._check(len(buffer))
        return int(self._file.readinto(buffer))

    def readline(self) -> bytes:
        # Of protocol 0 a whole array is one line.
        return self._file.readline()

    def tell(self) -> int:
        return self._file.tell()

    def _check(self, count: int) -> None:
        left = self._size - self._file.tell()
        if count > left:
            raise EOFError(f"{count} bytes declared, {left} left")


class _Dtype:
    """Stands in for a numpy dtype while a pickle is read: only sizes and byte order can be set."""

    def __init__(self, code: Any, align: Any = False, copy: Any = False) -> None:
        code = code.decode("latin-1") if isinstance(code, bytes) else code
        if not isinstance(code, str) or len(code) > 12:
            raise InputError(f"a data type {code!r}")
        dtype = np.dtype(code)
        if dtype.kind not in _KINDS or dtype.subdtype is not None:
            raise InputError(f"the data type '{code}'")
        self.dtype = dtype

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order, subtype, names, fields, size = state[1:6]
        if subtype is not None or names is not None or fields is not None:
            raise InputError("a structured data type")
        order = order.decode("latin-1") if isinstance(order, bytes) else order
        if order not in ("<", ">", "=", "|"):
            raise InputError(f"a data type of byte order {order!r}")
        if self.dtype.kind in "SU" and isinstance(size, int) and size >= 0:
            unit = 4 if self.dtype.kind == "U" else 1
            self.dtype = np.dtype(f"{self.dtype.kind}{size // unit}")
        if order != "|":
            self.dtype = np.dtype(("<" if order == "=" else order) + self.dtype.str[1:])


class _Array:
    """Stands in for a numpy array while a pickle is read."""

    def __init__(self) -> None:
        self.array: NDArray[Any] | StoredArray | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        shape, dtype, fortran, data = state[-4:]
        if not isinstance(dtype, _Dtype):
            raise InputError("an array without a data type")
        if isinstance(data, str):
            data = data.encode("latin-1")
        if not isinstance(data, bytes | bytearray | _InFile):
            raise InputError("an array of Python objects")
        self.array = _array(data, dtype, shape, "F" if fortran else "C")


def _array(data: Any, dtype: _Dtype, shape: Any, order: str) -> NDArray[Any] | StoredArray:
    if not isinstance(shape, tuple) or not all(isinstance(n, int) and n >= 0 for n in shape) or len(shape) > 16:
        raise InputError(f"an array of shape {shape!r}")
    if not isinstance(data, _InFile):
        return _filled(data, dtype.dtype, shape, order)
    if data.kind in ("bytes", "bytearray", "string"):
        # Of the others the bytes are known when they are read.
        _check_size(data.length, dtype.dtype, shape)
    return StoredArray(shape, dtype.dtype, order, data)


def _filled(data: Any, dtype: np.dtype[Any], shape: tuple[int, ...], order: str) -> NDArray[Any]:
    _check_size(len(data), dtype, shape)
    # On the bytes of the file themselves, and therefore read-only: data sets of gigabytes are not held twice.
    return np.frombuffer(data, dtype).reshape(shape, order="F" if order == "F" else "C")


def _check_size(size: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    if math.prod(shape) * dtype.itemsize != size:
        raise InputError(f"an array of shape {shape} of {dtype} with {size} bytes of data")
    if dtype.itemsize == 0:
        raise InputError("an array of empty strings")


def _reconstruct(subtype: Any, shape: Any, code: Any) -> _Array:
    if subtype is not _Array:
        raise InputError("an array of another class")
    return _Array()


def _frombuffer(data: Any, dtype: Any, shape: Any, order: Any) -> NDArray[Any] | StoredArray:
    if not isinstance(dtype, _Dtype) or not isinstance(data, bytes | bytearray | _InFile):
        raise InputError("an array whose data is not in the file")
    return _array(data if isinstance(data, _InFile) else bytes(data), dtype, shape, order)


def _scalar(dtype: Any, data: Any = b"") -> Any:
    if not isinstance(dtype, _Dtype):
        raise InputError("a scalar without a data type")
    data = data.data() if isinstance(data, _InFile) else data
    data = data.encode("latin-1") if isinstance(data, str) else data
    return _filled(data, dtype.dtype, (), "C")[()]


def _encode(text: Any, codec: Any = "latin1") -> bytes | _InFile:
    stored = isinstance(text, _InFile) and text.kind == "text"
    if not (stored or isinstance(text, str)) or codec not in ("latin1", "latin-1"):
        raise InputError(f"text in the codec {codec!r}")
    if isinstance(text, _InFile):
        return _InFile(text.path, text.at, text.length, "encoded")
    return bytes(text.encode("latin-1"))


def _ordered(items: Any = ()) -> dict[Any, Any]:
    return OrderedDict(items)


def _members(items: Any = ()) -> set[Any]:
    return set(items)


_KNOWN: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
    ("collections", "OrderedDict"): _ordered,
    ("builtins", "set"): _members,
    ("__builtin__", "set"): _members,
}
for _core in ("numpy.core", "numpy._core"):
    _KNOWN[(f"{_core}.multiarray", "_reconstruct")] = _reconstruct
    _KNOWN[(f"{_core}.multiarray", "scalar")] = _scalar
    _KNOWN[(f"{_core}.numeric", "_frombuffer")] = _frombuffer
_CALLABLE = frozenset(_KNOWN.values())


# The pure-Python unpickler, not the compiled one: the compiled one takes as much memory as a forged memo index asks
# for.
class _Unpickler(pickle._Unpickler):
    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)
    stack: list[Any]

    def __init__(self, file: _Bounded, path: Path) -> None:
        super().__init__(file, encoding="latin1")
        self._source, self._path, self._where = file, path, str(path)

    def find_class(self, module: str, name: str) -> Any:
        found = _KNOWN.get((module, name))
        if found is None:
            raise InputError(
                f"{self._where} names {module}.{name}, which is not data: loading it with Python's pickle would run "
                "code. Only numpy arrays, plain containers, numbers and strings are read."
            )
        return found

    def _refuse(self) -> None:
        raise InputError(f"{self._where} makes objects of classes, which is not data. Nothing was run.")

    def load_reduce(self) -> None:
        arguments = self.stack.pop()
        function = self.stack[-1]
        if not callable(function) or function not in _CALLABLE or not isinstance(arguments, tuple):
            self._refuse()
        try:
            self.stack[-1] = function(*arguments)
        except InputError as problem:
            raise InputError(f"{self._where} holds {problem.reason}, which is not read.") from None

    def load_build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if not isinstance(target, _Array | _Dtype) or not isinstance(state, tuple):
            self._refuse()
        try:
            target.__setstate__(state)
        except InputError as problem:
            raise InputError(f"{self._where} holds {problem.reason}, which is not read.") from None

    dispatch[pickle.REDUCE[0]] = load_reduce
    dispatch[pickle.BUILD[0]] = load_build
    for _code in (pickle.INST, pickle.OBJ, pickle.NEWOBJ, pickle.NEWOBJ_EX, pickle.EXT1, pickle.EXT2, pickle.EXT4,
                  pickle.PERSID, pickle.BINPERSID, pickle.NEXT_BUFFER):  # fmt: skip
        dispatch[_code[0]] = _refuse


class _LaterUnpickler(_Unpickler):
    """Puts the place of large data where the data would be."""

    dispatch: ClassVar[dict[int, Any]] = dict(_Unpickler.dispatch)
    # What Python's class makes when it begins to load.
    append: Callable[[Any], None]
    read: Callable[[int], bytes]
    _unframer: Any

    def _load_sized(self, size: str, kind: str) -> None:
        length = struct.unpack(size, self.read(struct.calcsize(size)))[0]
        if length < 0:
            raise pickle.UnpicklingError("data of a negative length")
        # What is in a frame was read from the file before.
        frame = self._unframer.current_frame
        waiting = frame.getbuffer().nbytes - frame.tell() if frame else 0
        place = _InFile(self._path, self._source.tell() - waiting, length, kind)
        data = self.read(length)
        if len(data) != length:
            raise EOFError(f"{length} bytes declared, {len(data)} left")
        if length >= _LARGE:
            self.append(place)
        elif kind == "text":
            self.append(data.decode("utf-8", "surrogatepass"))
        elif kind == "string":
            self.append(data.decode("latin-1"))
        else:
            self.append(bytearray(data) if kind == "bytearray" else data)

    for _code, _size, _kind in (
        (pickle.BINBYTES, "<I", "bytes"),
        (pickle.BINBYTES8, "<Q", "bytes"),
        (pickle.BYTEARRAY8, "<Q", "bytearray"),
        (pickle.BINSTRING, "<i", "string"),
        (pickle.BINUNICODE, "<I", "text"),
        (pickle.BINUNICODE8, "<Q", "text"),
    ):
        dispatch[_code[0]] = partial(_load_sized, size=_size, kind=_kind)


def _finished(value: Any, where: str, done: dict[int, Any], depth: int) -> Any:
    """The loaded value with stand-ins replaced by their arrays; shared parts stay shared."""
    if isinstance(value, str | int | float | bytes | bool | complex | np.generic | np.ndarray) or value is None:
        return value
    if isinstance(value, StoredArray):
        return value
    if isinstance(value, _InFile):
        return value.load()
    if depth > _DEPTH:
        raise InputError(f"{where} is nested more than {_DEPTH} levels deep, which no data set is.")
    if id(value) in done:
        return done[id(value)][1]
    result: Any
    if isinstance(value, _Array):
        if value.array is None:
            raise InputError(f"{where} holds an array without data.")
        result = value.array
    elif isinstance(value, dict):
        # Filled in place, so that a container that holds itself ends here and not in a loop.
        done[id(value)] = (value, value)
        for key in value:
            if not isinstance(key, str | bytes | int | float | tuple | np.generic | None):
                raise InputError(f"{where} holds a dict with a {type(key).__name__} as a key, which is not data.")
            value[key] = _finished(value[key], where, done, depth + 1)
        return value
    elif isinstance(value, list):
        done[id(value)] = (value, value)
        for index, part in enumerate(value):
            value[index] = _finished(part, where, done, depth + 1)
        return value
    elif isinstance(value, tuple):
        result = tuple(_finished(part, where, done, depth + 1) for part in value)
    elif isinstance(value, set | frozenset):
        result = {part.load() if isinstance(part, _InFile) else part for part in value}
    elif isinstance(value, bytearray):
        result = value
    elif isinstance(value, _Dtype):
        result = value.dtype
    else:
        raise InputError(f"{where} holds {type(value).__name__}, which is not data.")
    done[id(value)] = (value, result)
    return result
