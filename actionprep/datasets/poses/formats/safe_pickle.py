"""Read untrusted pickles as numpy arrays, plain containers, numbers and strings, without running anything in them.

Python's unpickler can call any function that a file names. This reader interprets the opcodes that
`pickletools.genops` lists. It replaces the few functions that NumPy arrays and scalars need by safe ones, and rejects
everything else. The size of array data is checked against the declared shape. It can stay in the file until it is needed.
"""

from __future__ import annotations

import math
import pickle
import pickletools
import warnings
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from actionprep.errors import InputError, UserError

_KINDS = "biufcSU"
_DEPTH = 64
# Data of at least this many bytes stays in the file if arrays are read later.
_LARGE = 512
# Exceptions that reading a damaged pickle can raise.
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
    """Bytes or text of a pickle, by their position in the file."""

    path: Path
    at: int
    length: int
    kind: str  # bytes, bytearray, string (of Python 2), text, or encoded: bytes that are written as text

    def load(self) -> Any:
        """Read the value."""
        raw = self._raw()
        if self.kind == "text":
            return raw.decode("utf-8", "surrogatepass")
        if self.kind == "string":
            return raw.decode("latin-1")
        return bytearray(raw) if self.kind == "bytearray" else self.data()

    def data(self) -> bytes:
        """Read the bytes of an array."""
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
    """An array that is still in its pickle; `read` loads it."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    _order: str
    _data: _InFile

    def read(self) -> NDArray[Any]:
        """Read the array, read-only; raises InputError if its bytes do not match its shape."""
        path = self._data.path
        try:
            return _filled(self._data.data(), self.dtype, self.shape, self._order)
        except (InputError, UnicodeError) as problem:
            what = problem.reason if isinstance(problem, InputError) else f"an array of damaged bytes ({problem})"
            raise InputError(f"{path} holds {what}, which is not read.") from None


def in_memory(value: Any) -> Any:
    """Read every `StoredArray` in a value of `load_pickle`.

    Raises:
        InputError: If an array is damaged, or if a list or dict contains itself.
    """
    return _in_memory(value, {}, 0)


_UNFINISHED = object()


def _in_memory(value: Any, done: dict[int, Any], depth: int) -> Any:
    if isinstance(value, StoredArray):
        if id(value) not in done:
            done[id(value)] = value.read()
        return done[id(value)]
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
    """Read a pickle file as numpy arrays, dicts, lists, tuples, sets, numbers, strings, bytes and None.

    Half-precision arrays stay half precision, value for value; arrays are read-only. Strings of Python 2 are read as
    latin-1, as numpy needs; in protocol 0 they must be ASCII.

    Args:
        path: The file.
        later: Leave large arrays in the file. Each is a `StoredArray`, to be read when it is needed, so that a data set
            of gigabytes takes the memory of its names.

    Raises:
        UserError: If there is no such file.
        InputError: If the file names anything else (the name is in the message), is cut short, declares arrays that its
            bytes do not fill, or describes more data than it contains.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"No pickle file at {path}.")
    with path.open("rb") as file:
        return _load(file, _Machine(path, str(path), path.stat().st_size, later=later))


def load_pickle_bytes(content: bytes, where: str) -> Any:
    """Read a pickle from bytes, as `load_pickle` reads a file. `where` names it in errors."""
    return _load(BytesIO(content), _Machine(Path(), where, len(content), later=False))


def _load(file: BinaryIO, machine: _Machine) -> Any:
    try:
        return _finished(machine.run(_Bounded(file, machine.size)), machine.where, {}, 0)
    except InputError:
        raise
    except _DAMAGE as error:
        raise InputError(
            f"{machine.where} is not a sound pickle: {type(error).__name__} near byte {file.tell()}: {error}. "
            "The file is damaged or cut short; fetch it again."
        ) from None


class _Bounded:
    """A file that raises EOFError for reads beyond its end, so that a forged length does not allocate memory."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size

    def read(self, count: int) -> bytes:
        left = self._size - self._file.tell()
        if count > left:
            raise EOFError(f"{count} bytes declared, {left} left")
        return self._file.read(count)

    def readline(self) -> bytes:
        # In protocol 0 a full array is one line.
        return self._file.readline()

    def tell(self) -> int:
        return self._file.tell()


# Opcodes that push their argument as it is.
_VALUES = frozenset(("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"))
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": set}
# Opcodes of data: its kind, and the number of bytes of opcode and length before it.
_DATA = {
    "SHORT_BINBYTES": ("bytes", 2),
    "BINBYTES": ("bytes", 5),
    "BINBYTES8": ("bytes", 9),
    "BYTEARRAY8": ("bytearray", 9),
    "STRING": ("string", 0),
    "SHORT_BINSTRING": ("string", 2),
    "BINSTRING": ("string", 5),
    "UNICODE": ("text", 0),
    "SHORT_BINUNICODE": ("text", 2),
    "BINUNICODE": ("text", 5),
    "BINUNICODE8": ("text", 9),
}
_MARKED = frozenset(("LIST", "TUPLE", "DICT", "FROZENSET", "APPENDS", "SETITEMS", "ADDITEMS", "POP_MARK"))
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_PUTS = frozenset(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"))
_GETS = frozenset(("GET", "BINGET", "LONG_BINGET"))
_NOTHING = frozenset(("PROTO", "FRAME"))
# Objects take memory, and an opcode of one byte makes one. A data set of 114,000 recordings has some 7 million opcodes.
_MAX_STEPS = 40_000_000


class _Machine:
    """Interpreter of the opcodes that `pickletools.genops` lists, limited to those that create data.

    The only functions are those of `_KNOWN`. Copies of the file's content, such as bytes encoded as text or arrays that
    share their bytes, are counted, and must not exceed the size of the file.
    """

    def __init__(self, path: Path, where: str, size: int, *, later: bool) -> None:
        self.where, self.size = where, size
        self._path, self._later = path, later
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []  # what stands below each open mark
        self._memo: dict[int, Any] = {}
        self._steps = 0
        self._copied = 0

    def run(self, file: _Bounded) -> Any:
        """Return the value in the file."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of odd escapes in text of protocol 0
            # genops only needs read, readline and the position.
            for opcode, argument, position in pickletools.genops(file):  # type: ignore[arg-type]
                if opcode.name == "STOP":
                    return self._stack.pop()
                self._count(1)
                self._step(opcode.name, argument, position)
        raise EOFError("no end of the pickle")

    def _step(self, name: str, argument: Any, position: int | None) -> None:
        stack = self._stack
        if name in _DATA:
            stack.append(self._data(name, argument, position))
        elif name in _PUTS:
            self._memo[len(self._memo) if argument is None else int(argument)] = stack[-1]
        elif name in _GETS:
            stack.append(self._memo[int(argument)])
        elif name in _VALUES:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name in _TUPLES:
            parts = stack[-_TUPLES[name] :]
            if len(parts) != _TUPLES[name]:
                raise IndexError("a tuple of more than there is")
            stack[-_TUPLES[name] :] = [tuple(parts)]
        elif name == "MARK":
            self._below.append(stack)
            self._stack = []
        elif name in _MARKED:
            self._stack = self._below.pop()
            self._close(name, stack)
        elif name == "APPEND":
            value = stack.pop()
            _of(list, stack[-1]).append(value)
        elif name == "SETITEM":
            value, key = stack.pop(), stack.pop()
            _of(dict, stack[-1])[key] = value
        elif name == "POP":
            stack.pop()
        elif name == "DUP":
            stack.append(stack[-1])
        elif name == "GLOBAL":
            stack.append(self._function(*str(argument).split(" ", 1)))
        elif name == "STACK_GLOBAL":
            function, module = stack.pop(), stack.pop()
            stack.append(self._function(module, function))
        elif name == "REDUCE":
            arguments, function = stack.pop(), stack.pop()
            stack.append(self._call(function, arguments))
        elif name == "BUILD":
            self._build(stack[-2], stack.pop())
        elif name not in _NOTHING:
            raise InputError(f"{self.where} makes objects of classes, which is not data. Nothing was run.")

    def _close(self, name: str, parts: list[Any]) -> None:
        """Close a mark: combine the values above it."""
        stack = self._stack
        if name == "TUPLE":
            stack.append(tuple(parts))
        elif name == "LIST":
            stack.append(parts)
        elif name == "FROZENSET":
            stack.append(frozenset(parts))
        elif name == "APPENDS":
            _of(list, stack[-1]).extend(parts)
        elif name == "ADDITEMS":
            _of(set, stack[-1]).update(parts)
        elif name in ("DICT", "SETITEMS"):
            if len(parts) % 2:
                raise ValueError("a key without a value")
            target = {} if name == "DICT" else _of(dict, stack[-1])
            target.update(zip(parts[::2], parts[1::2], strict=True))
            if name == "DICT":
                stack.append(target)

    def _data(self, name: str, argument: Any, position: int | None) -> Any:
        kind, before = _DATA[name]
        if self._later and before and position is not None and len(argument) >= _LARGE // 4:
            length = len(argument.encode("utf-8", "surrogatepass")) if kind == "text" else len(argument)
            if length >= _LARGE:
                return _InFile(self._path, position + before, length, kind)
        return argument

    def _function(self, module: Any, name: Any) -> Callable[..., Any]:
        known = _KNOWN.get((module, name)) if isinstance(module, str) and isinstance(name, str) else None
        if known is None:
            raise InputError(
                f"{self.where} names {module}.{name}, which is not data: loading it with Python's pickle would run "
                "code. Only numpy arrays, plain containers, numbers and strings are read."
            )
        return known

    def _call(self, function: Any, arguments: Any) -> Any:
        if not callable(function) or function not in _CALLABLE or not isinstance(arguments, tuple):
            raise InputError(f"{self.where} makes objects of classes, which is not data. Nothing was run.")
        for argument in arguments:
            self._copy(argument)
        try:
            return function(*arguments)
        except InputError as problem:
            raise InputError(f"{self.where} holds {problem.reason}, which is not read.") from None

    def _build(self, target: Any, state: Any) -> None:
        if not isinstance(target, _Array | _Dtype) or not isinstance(state, tuple):
            raise InputError(f"{self.where} makes objects of classes, which is not data. Nothing was run.")
        for part in state:
            self._copy(part)
        try:
            target.__setstate__(state)
        except InputError as problem:
            raise InputError(f"{self.where} holds {problem.reason}, which is not read.") from None

    def _copy(self, value: Any) -> None:
        """Count the bytes that a call copies; content of the file is normally copied once or twice."""
        if isinstance(value, list | tuple | set | dict):
            self._count(len(value))
        elif isinstance(value, str | bytes | bytearray | _InFile):
            self._copied += value.length if isinstance(value, _InFile) else len(value)
            if self._copied > 4 * self.size:
                raise InputError(
                    f"{self.where} describes more than {4 * self.size / 1e6:.1f} MB of arrays, and is "
                    f"{self.size / 1e6:.1f} MB large: it uses the same bytes again and again. It was not read."
                )

    def _count(self, steps: int) -> None:
        self._steps += steps
        if self._steps > _MAX_STEPS:
            raise InputError(
                f"{self.where} describes more than {_MAX_STEPS:,} objects, which no data set has. It was not read."
            )


T = TypeVar("T")


def _of(kind: type[T], value: Any) -> T:
    """Return a value of the expected type; raises an error for other types."""
    if not isinstance(value, kind):
        raise ValueError(f"something is added to {type(value).__name__}, expected {kind.__name__}")
    return value


class _Dtype:
    """Placeholder of a NumPy dtype while a pickle is read; only sizes and byte order can be set."""

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
    """Placeholder of a NumPy array while a pickle is read."""

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
        # The bytes of the others are known when they are read.
        _check_size(data.length, dtype.dtype, shape)
    return StoredArray(shape, dtype.dtype, order, data)


def _filled(data: Any, dtype: np.dtype[Any], shape: tuple[int, ...], order: str) -> NDArray[Any]:
    _check_size(len(data), dtype, shape)
    # A read-only view of the bytes of the file, so that large data sets are not in memory twice.
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


def _finished(value: Any, where: str, done: dict[int, Any], depth: int) -> Any:
    """Replace placeholders by their arrays; shared parts stay shared."""
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
        # Fill in place, so that a container that contains itself does not cause an endless loop.
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
