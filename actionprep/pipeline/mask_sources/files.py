"""Read masks made by another program: one image or array per frame, one array per view, or a mask video."""

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
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from actionprep.datasets.poses.formats.safe_npz import read_npy_header
from actionprep.errors import InputError, UserError, explained_read_errors
from actionprep.pipeline.mask_sources.annotated import AnnotatedMasks
from actionprep.pipeline.mask_sources.rle import MOST_PIXELS
from actionprep.pipeline.mask_sources.source import MaskBlock, MaskSource
from actionprep.pipeline.opening import InputFile

if TYPE_CHECKING:
    from actionprep.datasets.store.reader import ItemReader
    from actionprep.pipeline.mask_sources.settings import MasksSettings
    from actionprep.pipeline.stage import FrameBlock, ViewSource

VIDEO_SUFFIXES = (".mp4", ".mkv", ".avi", ".mov", ".webm", ".m4v")
FRAME_SUFFIXES = (".png", ".npz", ".npy")


class FileMasks(MaskSource):
    """Read masks made by another program, such as DEVA, SAM 2 or an annotation tool.

    The setting `files` is a path relative to the study's folder, with the placeholders `{recording}` and `{view}`. It
    is one of:

    - a folder, or files named with `*`: one .png, .npz or .npy per frame, ordered by the last number in their names
    - one .npz or .npy: an array of shape (T, H, W)
    - a video: one frame per mask; pixels brighter than mid gray are foreground
    - one .png: the same mask for every frame, for example of the workplace
    - one .json: COCO run-length encoding by frame, as SAM 2, SA-V and COCO annotations have it
    - one .xml: CVAT for images or for video 1.1, with masks or polygons

    Integers in images and arrays are object ids, and 0 is background; `ids` selects some of them. In a color image
    without a palette, the id of a pixel is red + 256 green + 65536 blue, as DEVA and COCO write ids above 255. If all
    its colors are of the palette of DAVIS and PASCAL VOC, the indices in that palette are ids as well.

    In a .json file, ids are those of masklets or objects, or of categories where objects have none. In CVAT files, they
    are ids of tracks, or numbers of labels from 1 on.
    """

    def __init__(self, settings: MasksSettings, source: ViewSource, done: Mapping[str, ItemReader]) -> None:
        super().__init__(settings, source, done)
        self._missing = self._resized = self._used = 0
        self._reader = _open(settings, source)

    @classmethod
    def reads_of_source(cls, settings: MasksSettings, source: ViewSource) -> Any:  # noqa: D102
        files = _files_at(_location(settings, source))
        lines = [f"{file.name} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in files]
        return {"mask_files": len(lines), "digest": hashlib.sha256("\n".join(lines).encode()).hexdigest()}

    def push(self, block: FrameBlock, live: Mapping[str, Any]) -> MaskBlock:  # noqa: D102
        foreground = np.zeros((len(block), self.source.height, self.source.width), bool)
        try:
            for row, index in zip(foreground, block.index, strict=True):
                mask = self._reader.mask(int(index))
                if mask is None:
                    self._note_missing(int(index))
                else:
                    self._used += 1
                    row[:] = self._fitted(mask, int(index))
        except InputError:
            # The view is not read any further: leave no file open.
            self._reader.close()
            raise
        return MaskBlock(block.index, foreground)

    def finish(self, live: Mapping[str, Any]) -> MaskBlock:  # noqa: D102
        self._reader.close()
        return MaskBlock.empty(self.source.height, self.source.width)

    def events(self) -> dict[str, int]:  # noqa: D102
        unused = max(len(self._reader) - self._used, 0)
        return {"num_missing": self._missing, "num_resized": self._resized, "num_unused": unused}

    def _note_missing(self, index: int) -> None:
        if self.settings.missing == "error":
            raise InputError(
                f"No mask for frame {index} of recording '{self.source.recording}', view {self.source.view}, "
                f"which has {self.source.num_frames} frames: {self._reader.describe(index)}\n"
                "Add the mask, set masks.first_number if the numbers in the file names start at another number, "
                'or set masks.missing = "empty" to treat such frames as background.',
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
        scaled: np.ndarray = cv2.resize(mask.astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST)
        return scaled.astype(bool)


class _Masks(ABC):
    """Masks of one view, read frame by frame in order."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of masks; 0 if it is not known before the end."""

    @abstractmethod
    def mask(self, index: int) -> np.ndarray | None:
        """Return the mask of a frame, bool of shape (H, W); None if it is missing."""

    @abstractmethod
    def name(self, index: int) -> str:
        """Return the location of a mask, for error messages."""

    @abstractmethod
    def describe(self, index: int) -> str:
        """Return a sentence about where the mask was searched for."""

    def close(self) -> None:  # noqa: B027 - most have nothing open
        """Close open files."""


class _Numbered(_Masks):
    """One file per frame."""

    def __init__(self, files: list[Path], settings: MasksSettings) -> None:
        self._settings = settings
        self._files = files
        self._by_number: dict[int, Path] = {}
        for file in files:
            numbers = re.findall(r"\d+", file.stem)
            if not numbers:
                raise InputError(f"Mask file {file} has a name without a number; expected the frame number.")
            number = int(numbers[-1])
            if number in self._by_number:
                raise InputError(
                    f"Two mask files are numbered {number}: {self._by_number[number].name} and {file.name} "
                    f"in {file.parent}. "
                    "Expected one mask per frame; select one kind of file with a pattern such as '…/{view}/*.png'."
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
            return _foreground(read_mask_png(file), self._settings)
        with _Array.open(file, self._settings.key) as array:
            if len(array.shape) > 2 and any(extent != 1 for extent in array.shape[:-2]):
                raise InputError(
                    f"Mask file {file} contains an array {array.shape}; expected one mask (H, W) per file."
                )
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
            raise InputError(f"{file} contains an array {self._array.shape}; expected masks (T, H, W).")
        self._next = 0

    def __len__(self) -> int:
        return self._array.shape[0]

    def mask(self, index: int) -> np.ndarray | None:
        if index >= len(self):
            return None
        while self._next <= index:
            values = self._array.read()
            self._next += 1
        return _foreground(values, self._settings)

    def name(self, index: int) -> str:
        return f"{self._file}, row {index}"

    def describe(self, index: int) -> str:
        return f"{self._file} has {len(self)} masks."

    def close(self) -> None:
        self._array.close()


class _MaskVideo(_Masks):
    """A video with one frame per mask."""

    def __init__(self, file: Path, settings: MasksSettings) -> None:
        import av

        if settings.ids:
            raise UserError(
                f"masks.ids selects object ids, but {file} is a video, and its colors are not ids. "
                "Remove 'ids': pixels brighter than mid gray are foreground."
            )
        self._file = file
        self._next = 0
        try:
            self._input = InputFile(str(file))
            self._container = av.open(self._input)
            self._frames: Iterator[Any] = iter(self._container.decode(video=0))
        except (av.FFmpegError, IndexError) as error:
            self._input.close()
            raise InputError(f"Mask video {file} cannot be read: {error}.", backend="PyAV") from None

    def __len__(self) -> int:
        return 0

    def mask(self, index: int) -> np.ndarray | None:
        import av

        frame = None
        try:
            while self._next <= index:
                frame = next(self._frames, None)
                self._input.check()
                if frame is None:
                    return None
                self._next += 1
        except av.FFmpegError as error:
            self._input.check()
            raise InputError(
                f"Mask video {self._file} is damaged at frame {self._next}: {error}.", frame=self._next, backend="PyAV"
            ) from None
        return None if frame is None else frame.to_ndarray(format="gray") > 127

    def name(self, index: int) -> str:
        return f"{self._file}, frame {index}"

    def describe(self, index: int) -> str:
        return f"{self._file} has {self._next} frames."

    def close(self) -> None:
        self._container.close()
        self._input.close()


class _Annotated(AnnotatedMasks, _Masks):
    """The masks of an annotation file."""


class _Constant(_Masks):
    """One mask for every frame."""

    def __init__(self, file: Path, settings: MasksSettings) -> None:
        self._file = file
        self._mask = _foreground(read_mask_png(file), settings)

    def __len__(self) -> int:
        return 1

    def mask(self, index: int) -> np.ndarray | None:
        return self._mask

    def name(self, index: int) -> str:
        return str(self._file)

    def describe(self, index: int) -> str:
        return f"{self._file} is used for every frame."


class _Array:
    """An array in a .npy or .npz file, read row by row after its declared type and shape were checked."""

    def __init__(self, file: Path, stream: IO[bytes], opened: ExitStack) -> None:
        self._file = file
        self._stream = stream
        self._opened = opened
        self.shape, fortran, self.dtype = read_npy_header(stream, str(file))
        if self.dtype.kind not in "biu":
            raise InputError(
                f"{file} contains values of type {self.dtype}; "
                "expected bool or integers (object ids, 0 is background). "
                "Apply a threshold to probabilities first."
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
        """Return the next mask, shape (H, W)."""
        height, width = self.shape[-2:]
        wanted = height * width * self.dtype.itemsize
        try:
            with explained_read_errors(self._file):
                content = self._stream.read(wanted)
        except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError) as error:
            raise InputError(f"{self._file} is damaged: {error}.") from None
        if len(content) != wanted:
            raise InputError(f"{self._file} ends early: it declares an array {self.shape} and contains less data.")
        return np.frombuffer(content, self.dtype).reshape(height, width)

    def close(self) -> None:
        self._opened.close()

    def __enter__(self) -> _Array:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _member(file: Path, key: str, opened: ExitStack) -> IO[bytes]:
    """Open the selected array of an npz file as a stream."""
    try:
        archive = opened.enter_context(zipfile.ZipFile(file))
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError, struct.error):
        raise InputError(f"{file} is not an npz file, or it is damaged.") from None
    names = [name.removesuffix(".npy") for name in archive.namelist()]
    chosen = key or (names[0] if len(names) == 1 else "arr_0")
    if chosen not in names:
        raise InputError(
            f"{file} has no array '{chosen}'. Its arrays: {', '.join(names) or 'none'}. Set masks.key to one of them."
        )
    try:
        return archive.open(f"{chosen}.npy")
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, KeyError, ValueError) as error:
        raise InputError(f"Array '{chosen}' in {file} cannot be read: {error}.") from None


def _location(settings: MasksSettings, source: ViewSource) -> Path:
    """Return the pattern filled in for this view; its last part may contain wildcards."""
    try:
        pattern = settings.files.format(recording=source.recording, view=source.view)
    except (KeyError, IndexError, ValueError):
        raise UserError(
            f"The pattern '{settings.files}' of masks.files cannot be filled in: "
            "it may contain {recording} and {view}, such as 'masks/{recording}/{view}'."
        ) from None
    return Path(source.root) / Path(pattern).expanduser()


def _files_at(location: Path) -> list[Path]:
    """Return the files at a location, ordered by name."""
    if location.is_file():
        return [location]
    if location.is_dir():
        return sorted(file for file in location.iterdir() if file.suffix in FRAME_SUFFIXES)
    return sorted(location.parent.glob(location.name)) if location.parent.is_dir() else []


def _open(settings: MasksSettings, source: ViewSource) -> _Masks:
    location = _location(settings, source)
    files = _files_at(location)
    if not files:
        raise InputError(
            f"No masks for recording '{source.recording}', view {source.view}: nothing exists at {location}.\n"
            "Expected a folder of .png or .npz files, one per frame, one .npz (T, H, W), or a mask video. "
            "Correct masks.files, or add the masks.",
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
    if suffix in (".json", ".xml"):
        return _Annotated(location, settings, source.num_frames)
    raise UserError(
        f"Masks cannot be read from {location}: expected .png, .npz, .npy, .json, .xml or a video "
        f"({', '.join(VIDEO_SUFFIXES)})."
    )


def read_mask_png(file: Path) -> np.ndarray:
    """Read object ids of shape (H, W). In an image with a palette, the indices are the ids."""
    from PIL import Image, UnidentifiedImageError

    try:
        with explained_read_errors(file), Image.open(file) as image:
            if image.width * image.height > MOST_PIXELS:
                raise InputError(f"Mask file {file} declares {image.width}x{image.height} px, more than is read.")
            values = np.asarray(image)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"Mask file {file} cannot be read as an image: {error}.", backend="Pillow") from None
    if values.ndim == 2:
        return values
    color = values[..., :3].astype(np.uint32)
    if values.shape[2] < 3:
        return color[..., 0]
    return color[..., 0] + 256 * color[..., 1] + 65536 * color[..., 2]


def _foreground(values: np.ndarray, settings: MasksSettings) -> np.ndarray:
    if not settings.ids:
        return np.asarray(values != 0)
    wanted = list(settings.ids)
    if values.dtype == np.uint32 and (present := set(np.unique(values).tolist())) <= set(_palette()):
        wanted += [color for color in present if _palette()[color] in settings.ids]
    return np.isin(values, wanted)


@cache
def _palette() -> dict[int, int]:
    """Return the index of each color of the PASCAL VOC palette, which DAVIS uses; colors as red + 256 green + ….

    Bits 0, 1 and 2 of the index are the highest bits of red, green and blue, and the next three bits the ones below.
    """
    colors: dict[int, int] = {}
    for index in range(256):
        channels = [
            sum(((index >> (3 * level + channel)) & 1) << (7 - level) for level in range(3)) for channel in range(3)
        ]
        colors.setdefault(channels[0] + 256 * channels[1] + 65536 * channels[2], index)
    return colors


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]} (width x height)"
