"""Open a video file and number its packets, or raise an error with the reason why it cannot be read."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import av

from actionprep.errors import InputError, explained_read_errors, read_error
from actionprep.pipeline.frame_conversion import Orientation
from actionprep.pipeline.packets import PacketIndex, read_packets
from actionprep.pipeline.quarantine import NO_FILE

BACKEND = f"PyAV {av.__version__}"

# Demuxers that make "video" out of text or playlists, which would take a text file for a recording.
_NOT_VIDEO = {"tty", "hls", "concat", "dash", "lrc", "srt", "ass", "webvtt", "subviewer", "sdp"}
# Transfer functions of HDR video (ITU-T H.273, table 3).
_HDR = {16: "PQ", 18: "HLG"}
# Packets tried for a first frame.
_FIRST_FRAME_PACKETS = 256


@contextmanager
def opened(path: str) -> Iterator[tuple[Any, Any]]:
    """The container and the video stream that players would choose; raises InputError with the reason otherwise."""
    _refuse_what_is_no_file(path)
    with InputFile(path) as file, _container_of(file) as container:
        if set(container.format.name.split(",")) & _NOT_VIDEO:
            raise InputError(f"{path}: holds text or a playlist, not video.", backend=BACKEND)
        if container.format.name.endswith("_pipe") or container.format.name == "image2":
            raise InputError(f"{path}: holds a still picture, not video.", backend=BACKEND)
        stream = container.streams.best("video")
        if stream is None or stream.disposition & av.stream.Disposition.attached_pic:
            fault = _mp4_fault(path)
            if fault is not None and fault.cut:
                raise InputError(f"{path}: {fault.reason}", backend=BACKEND)
            kinds = sorted({one.type for one in container.streams}) or ["no"]
            raise InputError(f"{path}: has no video stream, only {' and '.join(kinds)} streams.", backend=BACKEND)
        if stream.codec_context is None:
            raise InputError(f"{path}: this FFmpeg has no decoder for its video.", backend=BACKEND)
        yield container, stream


class InputFile:
    """A file for FFmpeg to read, which distinguishes errors of the system from damaged content.

    FFmpeg takes an error in the middle of a file for its end, or for damage. So the first error is kept, and is raised
    by `check` and at the end of the block.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        # FFmpeg wants a name for its suffix alone. A name on the disk need not be text.
        self.name = "input" + os.path.splitext(path)[1].encode("utf-8", "replace").decode()
        self._problem: InputError | None = None
        with explained_read_errors(path):
            self._file = io.FileIO(path)

    def __enter__(self) -> InputFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self.close()
        # Of what is given up early, nobody wants to know.
        if error is not self._problem and not isinstance(error, GeneratorExit):
            self.check()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def check(self) -> None:
        """Raise the first error of reading, if there was one."""
        if self._problem is not None:
            raise self._problem

    def read(self, size: int) -> bytes:
        """Up to so many bytes; none after an error."""
        if self._problem is not None:
            return b""
        try:
            return self._file.read(size) or b""
        except OSError as error:
            # Not raised here: FFmpeg may not hand it on, and PyAV would raise it in the next call for any file.
            self._problem = read_error(self.path, error)
            return b""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a byte."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """The byte that is read next."""
        return self._file.tell()


def _container_of(file: InputFile) -> Any:
    try:
        # Playlists and the like cannot point elsewhere.
        return av.open(file, metadata_errors="replace", options={"protocol_whitelist": "file"})
    except av.error.FFmpegError as error:
        raise InputError(f"{file.path}: {_why_not_video(file.path, error)}", backend=BACKEND) from error


@dataclass(frozen=True)
class Look:
    """Properties of the first frame that decodes.

    Attributes:
        height: Display height in pixels.
        width: Display width in pixels.
        pixel_format: Name of the pixel format in FFmpeg.
        orientation: How stored frames are turned for display.
        warnings: Findings, one sentence each.
        hdr: Name of the HDR transfer function (PQ or HLG); empty for SDR.
    """

    height: int
    width: int
    pixel_format: str
    orientation: Orientation
    warnings: tuple[str, ...] = ()
    hdr: str = ""


def number_packets(
    path: str, container: Any, stream: Any, *, see: Callable[[Any], None] | None = None
) -> tuple[PacketIndex, Look]:
    """Number the packets of a stream, and decode the first of them until a frame comes out.

    Args:
        path: Path of the file, for errors.
        container: Opened container.
        stream: Video stream of it.
        see: Called with every packet.

    Raises:
        InputError: If the stream has no frame.
    """
    first: list[Any] = []
    tried = 0

    def look_at(packet: Any) -> None:
        nonlocal tried
        if see is not None:
            see(packet)
        # Without a size nothing can be made of a video, so the search continues.
        sized = stream.codec_context.height > 0 and stream.codec_context.width > 0
        if not first and (tried < _FIRST_FRAME_PACKETS or not sized):
            tried += 1
            with suppress(av.error.FFmpegError):
                first.extend(packet.decode())

    index = read_packets(container, stream, see=look_at)
    if not index.num_frames:
        why = f" ({'; '.join(index.warnings)})" if index.warnings else ""
        raise InputError(f"{path}: has a video stream without a single frame{why}.", backend=BACKEND)
    if not first:
        context = stream.codec_context
        if not (context.height > 0 and context.width > 0):
            raise InputError(
                f"{path}: no frame decodes from its {tried} packets, and nothing in it states the frame size. "
                "The part with the settings of the decoder is missing: cut or copy it again from the original.",
                backend=BACKEND,
            )
        warning = f"no frame decodes from its first {tried} packets"
        return index, Look(context.height, context.width, str(context.pix_fmt), Orientation(), (warning,))
    frame = first[0]
    orientation = Orientation.of(frame)
    size = (frame.width, frame.height) if orientation.transposed else (frame.height, frame.width)
    odd = () if orientation.exact else ("its rotation is not a multiple of 90 degrees: it is rounded to one",)
    return index, Look(*size, frame.format.name, orientation, odd, _HDR.get(int(frame.color_trc), ""))


def _refuse_what_is_no_file(path: str) -> None:
    if not os.path.exists(path):
        raise InputError(f"{path}: there is no such file.", backend=NO_FILE)
    if not os.path.isfile(path):
        raise InputError(f"{path}: is not a file.")
    with explained_read_errors(path):
        if os.path.getsize(path) == 0:
            raise InputError(f"{path}: is empty (0 bytes).")


def _why_not_video(path: str, error: Any) -> str:
    with explained_read_errors(path):
        return _looks_like(path, error)


def _looks_like(path: str, error: Any) -> str:
    fault = _mp4_fault(path)
    if fault is not None:
        return fault.reason
    with open(path, "rb") as file:
        head = file.read(4096)
    text = head[:-4].decode("utf-8", "ignore") if len(head) > 8 else ""
    if text and b"\0" not in head and len(text.encode()) > 0.95 * (len(head) - 4):
        return "holds text, not video."
    return f"is not a video that FFmpeg can read ({error.strerror}); it is damaged or of another kind."


@dataclass(frozen=True)
class _Mp4Fault:
    reason: str
    cut: bool


def _mp4_fault(path: str) -> _Mp4Fault | None:
    """What is wrong with an MP4 or MOV file that gives no video, and whether it was cut off; None for other files.

    Walks the top level boxes (ISO/IEC 14496-12, section 4.2).
    """
    end = os.path.getsize(path)
    kinds: list[bytes] = []
    at = 0
    with open(path, "rb") as file:
        while at + 8 <= end:
            file.seek(at)
            header = file.read(16)
            length, kind = int.from_bytes(header[:4], "big"), header[4:8]
            if length == 1:
                length = int.from_bytes(header[8:16], "big")
            elif length == 0:
                length = end - at
            kinds.append(kind)
            if length < 8:
                break
            at += length
    if not kinds or kinds[0] not in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        return None
    if b"moov" in kinds:
        return _Mp4Fault(
            "is an MP4 whose index is damaged. Copy it again, or repair it with a tool for that.", at > end
        )
    lost = f", by {at - end} bytes or more" if at > end else ""
    reason = (
        "is an MP4 without its index (no 'moov' box), which is written when a recording ends: it was cut off"
        f"{lost}. Copy it again, or repair it with a tool for that."
    )
    return _Mp4Fault(reason, True)
