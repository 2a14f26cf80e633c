"""Masks that another program made: pictures or arrays, one a frame, one array for the whole view, or a mask video."""

from __future__ import annotations

import hashlib
import lzma
import re
import struct
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from actionprep.datasets.poses.formats.safe_npz import read_npy_header
from actionprep.errors import InputError, UserError, explained_read_errors
from actionprep.pipeline.mask_sources.source import MaskBlock, MaskSource
from actionprep.pipeline.opening import InputFile

if TYPE_CHECKING:
    from actionprep.datasets.store.zarr_store import ItemReader
    from actionprep.pipeline.mask_sources.settings import MasksSettings
    from actionprep.pipeline.stage import FrameBlock, ViewSource

VIDEO_SUFFIXES = (".mp4", ".mkv", ".avi", ".mov", ".webm", ".m4v")
ONE_A_FRAME = (".png", ".npz", ".npy")
MOST_PIXELS = 1 << 26
"""A mask that declares more is not read: no video has such frames, so that the file is damaged or hostile."""


class FileMasks(MaskSource):
    """Masks that another program made (DEVA, SAM 2, an annotation tool), found by a pattern.

    The pattern `files` is a path, from the study's folder, with `{recording}` and `{view}` in it. It leads to

    a folder, or files named with `*`   one .png, .npz or .npy a frame, in the order of the last number in their names
    one .npz or .npy                    an array (T, H, W)
    a video                             one frame a mask, brighter than mid gray is foreground
    one .png                            one mask that holds for every frame, such as the place of work

    In pictures and arrays whole numbers are object ids, 0 is background; `ids` chooses among them. A color picture
    without palette is read as DEVA and COCO write ids above 255: red + 256 green + 65536 blue.
    """

    def __init__(self, settings: MasksSettings, source: ViewSource, done: Mapping[str, ItemReader]) -> None:
        super().__init__(settings, source, done)
        self._missing = self._resized = self._taken = 0
        self._reader = _open(settings, source)

    @classmethod
    def reads_of_source(cls, settings: MasksSettings, source: ViewSource) -> Any:  # noqa: D102
        files = _files_at(_location(settings, source))
        found = [f"{file.name} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in files]
        return {"mask_files": len(found), "digest": hashlib.sha256("\n".join(found).encode()).hexdigest()}

    def push(self, block: FrameBlock, live: Mapping[str, Any]) -> MaskBlock:  # noqa: D102
        foreground = np.zeros((len(block), self.source.height, self.source.width), bool)
        try:
            for into, index in zip(foreground, block.index, strict=True):
                mask = self._reader.mask(int(index))
                if mask is None:
                    self._note_missing(int(index))
                else:
                    self._taken += 1
                    into[:] = self._fitted(mask, int(index))
        except InputError:
            # Nobody comes back to this view: leave no file open.
            self._reader.close()
            raise
        return MaskBlock(block.index, foreground)

    def finish(self, live: Mapping[str, Any]) -> MaskBlock:  # noqa: D102
        self._reader.close()
        return MaskBlock.empty(self.source.height, self.source.width)

    def events(self) -> dict[str, int]:  # noqa: D102
        unused = max(len(self._reader) - self._taken, 0)
        return {"num_missing": self._missing, "num_resized": self._resized, "num_unused": unused}

    def _note_missing(self, index: int) -> None:
        if self.settings.missing == "error":
            raise InputError(
                f"No mask for frame {index} of recording '{self.source.recording}', view {self.source.view}, "
                f"which has {self.source.num_frames} frames: {self._reader.describe(index)}\n"
                "Add the mask, set masks.first_number if the numbers in the names begin elsewhere, "
                'or set masks.missing = "empty" to take such frames as without foreground.',
                frame=index,
                backend="mask files",
            )
        self._missing += 1

    def _fitted(self, mask: np.ndarray, index: int) -> np.ndarray:
        size = (self.source.height, self.source.width)
        if mask.shape == size:
            return mask
        if not self.settings.resize:
            raise InputError(
                f"The mask of frame {index} of recording '{self.source.recording}', view {self.source.view} "
                f"({self._reader.name(index)}) is {_size(mask.shape)}; "
                f"expected {_size(size)}, the size of the frames.\n"
                "Give masks of that size, or set masks.resize = true to scale them (nearest pixel).",
                frame=index,
                backend="mask files",
            )
        import cv2

        self._resized += 1
        scaled = cv2.resize(mask.astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST)
        return scaled.astype(bool)


class _Masks(ABC):
    """Masks of one view, asked for frame by frame in order."""

    @abstractmethod
    def __len__(self) -> int:
        """How many masks there are; 0 where that is not known before the end."""

    @abstractmethod
    def mask(self, index: int) -> np.ndarray | None:
        """(H, W) bool of that frame, or None when there is none."""

    @abstractmethod
    def name(self, index: int) -> str:
        """What to call the place of that mask in an error."""

    @abstractmethod
    def describe(self, index: int) -> str:
        """A sentence on where the mask was sought."""

    def close(self) -> None:  # noqa: B027 - most have nothing open
        """Let go of open files."""


class _Numbered(_Masks):
    """One file a frame."""

    def __init__(self, files: list[Path], settings: MasksSettings) -> None:
        self._settings = settings
        self._files = files
        self._by_number: dict[int, Path] = {}
        for file in files:
            numbers = re.findall(r"\d+", file.stem)
            if not numbers:
                raise InputError(f"Mask file {file} has no number in its name: expected the number of its frame.")
            number = int(numbers[-1])
            if number in self._by_number:
                raise InputError(
                    f"Two mask files are numbered {number}: {self._by_number[number].name} and {file.name} "
                    f"in {file.parent}. "
                    "Expected one mask a frame; name one kind with a pattern such as '…/{view}/*.png'."
                )
            self._by_number[number] = file
        first = settings.first_number
        self._first = first if first is not None else 0 if 0 in self._by_number else 1

    def __len__(self) -> int:
        return len(self._by_number)

    def mask(self, index: int) -> np.ndarray | None:
        file = self._by_number.get(index + self._first)
        if file is None:
            return None
        if file.suffix == ".png":
            return _foreground(_read_png(file), self._settings)
        with _Array.open(file, self._settings.key) as array:
            if len(array.shape) > 2 and any(extent != 1 for extent in array.shape[:-2]):
                raise InputError(f"Mask file {file} holds an array {array.shape}; expected one mask (H, W) a file.")
            return _foreground(array.read(), self._settings)

    def name(self, index: int) -> str:
        return str(self._by_number[index + self._first])

    def describe(self, index: int) -> str:
        names = sorted(self._by_number.items())
        return (
            f"{self._files[0].parent} has no file numbered {index + self._first}. It has {len(names)} masks, "
            f"{names[0][1].name} … {names[-1][1].name}."
        )


class _Stacked(_Masks):
    """One array (T, H, W), read frame by frame."""

    def __init__(self, file: Path, settings: MasksSettings) -> None:
        self._file = file
        self._settings = settings
        self._array = _Array.open(file, settings.key)
        if len(self._array.shape) != 3:
            self._array.close()
            raise InputError(f"{file} holds an array {self._array.shape}; expected masks (T, H, W).")
        self._next = 0

    def __len__(self) -> int:
        return self._array.shape[0]

    def mask(self, index: int) -> np.ndarray | None:
        if index >= len(self):
            return None
        while self._next <= index:
            picture = self._array.read()
            self._next += 1
        return _foreground(picture, self._settings)

    def name(self, index: int) -> str:
        return f"{self._file}, row {index}"

    def describe(self, index: int) -> str:
        return f"{self._file} has {len(self)} masks."

    def close(self) -> None:
        self._array.close()


class _MaskVideo(_Masks):
    """One frame a mask."""

    def __init__(self, file: Path, settings: MasksSettings) -> None:
        import av

        if settings.ids:
            raise UserError(
                f"masks.ids chooses object ids, but {file} is a video, whose colors are no ids. "
                "Leave 'ids' out: brighter than mid gray is foreground."
            )
        self._file = file
        self._next = 0
        try:
            self._input = InputFile(str(file))
            self._container = av.open(self._input)
            self._pictures: Iterator[Any] = iter(self._container.decode(video=0))
        except (av.FFmpegError, IndexError) as error:
            self._input.close()
            raise InputError(f"Mask video {file} cannot be read: {error}.", backend="PyAV") from None

    def __len__(self) -> int:
        return 0

    def mask(self, index: int) -> np.ndarray | None:
        import av

        picture = None
        try:
            while self._next <= index:
                picture = next(self._pictures, None)
                self._input.check()
                if picture is None:
                    return None
                self._next += 1
        except av.FFmpegError as error:
            self._input.check()
            raise InputError(
                f"Mask video {self._file} is damaged at frame {self._next}: {error}.", frame=self._next, backend="PyAV"
            ) from None
        return None if picture is None else picture.to_ndarray(format="gray") > 127

    def name(self, index: int) -> str:
        return f"{self._file}, frame {index}"

    def describe(self, index: int) -> str:
        return f"{self._file} has {self._next} frames."

    def close(self) -> None:
        self._container.close()
        self._input.close()


class _Constant(_Masks):
    """One mask for every frame."""

    def __init__(self, file: Path, settings: MasksSettings) -> None:
        self._file = file
        self._mask = _foreground(_read_png(file), settings)

    def __len__(self) -> int:
        return 1

    def mask(self, index: int) -> np.ndarray | None:
        return self._mask

    def name(self, index: int) -> str:
        return str(self._file)

    def describe(self, index: int) -> str:
        return f"{self._file} holds for every frame."


class _Array:
    """An array in a .npy or .npz file, its declared type and size checked before anything is read, read row by row."""

    def __init__(self, file: Path, stream: IO[bytes], opened: ExitStack) -> None:
        self._file = file
        self._stream = stream
        self._opened = opened
        self.shape, fortran, self.dtype = read_npy_header(stream, str(file))
        if self.dtype.kind not in "biu":
            raise InputError(
                f"{file} holds values of type {self.dtype}; "
                "expected bool or whole numbers (object ids, 0 is background). "
                "Probabilities must be cut to masks first."
            )
        if fortran and len(self.shape) > 1:
            raise InputError(f"{file} is in Fortran order; expected C order. Save it with np.ascontiguousarray(masks).")
        if len(self.shape) < 2 or int(np.prod(self.shape[-2:], dtype=object)) > MOST_PIXELS:
            raise InputError(f"{file} declares an array {self.shape}; expected masks (H, W) or (T, H, W).")

    @classmethod
    def open(cls, file: Path, key: str) -> _Array:
        opened = ExitStack()
        try:
            with explained_read_errors(file):
                stream = opened.enter_context(file.open("rb") if file.suffix == ".npy" else _member(file, key, opened))
                return cls(file, stream, opened)
        except BaseException:
            opened.close()
            raise

    def read(self) -> np.ndarray:
        """The next (H, W)."""
        height, width = self.shape[-2:]
        wanted = height * width * self.dtype.itemsize
        try:
            with explained_read_errors(self._file):
                content = self._stream.read(wanted)
        except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError) as error:
            raise InputError(f"{self._file} is damaged: {error}.") from None
        if len(content) != wanted:
            raise InputError(f"{self._file} ends early: it declares an array {self.shape} and holds less.")
        return np.frombuffer(content, self.dtype).reshape(height, width)

    def close(self) -> None:
        self._opened.close()

    def __enter__(self) -> _Array:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _member(file: Path, key: str, opened: ExitStack) -> IO[bytes]:
    """The chosen array of an npz file, as a stream."""
    try:
        archive = opened.enter_context(zipfile.ZipFile(file))
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError, struct.error):
        raise InputError(f"{file} is not an npz file: it is damaged or something else.") from None
    names = [name.removesuffix(".npy") for name in archive.namelist()]
    chosen = key or (names[0] if len(names) == 1 else "arr_0")
    if chosen not in names:
        raise InputError(
            f"{file} has no array '{chosen}', it has {', '.join(names) or 'none'}. Name the right one with masks.key."
        )
    try:
        return archive.open(f"{chosen}.npy")
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, KeyError, ValueError) as error:
        raise InputError(f"Array '{chosen}' in {file} cannot be read: {error}.") from None


def _location(settings: MasksSettings, source: ViewSource) -> Path:
    """The pattern filled in for this view; its last part may hold wildcards."""
    try:
        pattern = settings.files.format(recording=source.recording, view=source.view)
    except (KeyError, IndexError, ValueError):
        raise UserError(
            f"The pattern '{settings.files}' of masks.files cannot be filled in: "
            "it may hold {recording} and {view}, such as 'masks/{recording}/{view}'."
        ) from None
    return Path(source.root) / Path(pattern).expanduser()


def _files_at(location: Path) -> list[Path]:
    """The files that it leads to, in the order of their names."""
    if location.is_file():
        return [location]
    if location.is_dir():
        return sorted(file for file in location.iterdir() if file.suffix in ONE_A_FRAME)
    return sorted(location.parent.glob(location.name)) if location.parent.is_dir() else []


def _open(settings: MasksSettings, source: ViewSource) -> _Masks:
    location = _location(settings, source)
    files = _files_at(location)
    if not files:
        raise InputError(
            f"No masks for recording '{source.recording}', view {source.view}: there is nothing at {location}.\n"
            "Expected a folder of .png or .npz files, one a frame, one .npz (T, H, W), or a mask video. "
            "Mend masks.files, or add the masks.",
            backend="mask files",
        )
    if not location.is_file():
        return _Numbered(files, settings)
    suffix = location.suffix.lower()
    if suffix in VIDEO_SUFFIXES:
        return _MaskVideo(location, settings)
    if suffix == ".png":
        return _Constant(location, settings)
    if suffix in (".npz", ".npy"):
        return _Stacked(location, settings)
    raise UserError(
        f"Masks cannot be read from {location}: expected .png, .npz, .npy or a video ({', '.join(VIDEO_SUFFIXES)})."
    )


def _read_png(file: Path) -> np.ndarray:
    """(H, W) object ids. A palette's indices are the ids, its colors are only for looking at."""
    from PIL import Image, UnidentifiedImageError

    try:
        with explained_read_errors(file), Image.open(file) as picture:
            if picture.width * picture.height > MOST_PIXELS:
                raise InputError(f"Mask file {file} declares {picture.width}x{picture.height} px: it is not read.")
            values = np.asarray(picture)
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"Mask file {file} cannot be read as a picture: {error}.", backend="Pillow") from None
    if values.ndim == 2:
        return values
    color = values[..., :3].astype(np.uint32)
    if values.shape[2] < 3:
        return color[..., 0]
    return color[..., 0] + 256 * color[..., 1] + 65536 * color[..., 2]


def _foreground(values: np.ndarray, settings: MasksSettings) -> np.ndarray:
    return np.isin(values, settings.ids) if settings.ids else values != 0


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]} (width x height)"
