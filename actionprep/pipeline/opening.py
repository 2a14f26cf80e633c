"""Open a video file and number its packets, or raise an error with the reason why it cannot be read."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import av
import numpy as np

from actionprep.errors import InputError, explained_read_errors, read_error
from actionprep.pipeline.frame_conversion import Orientation
from actionprep.pipeline.packets import PacketIndex, read_packets
from actionprep.pipeline.quarantine import NO_FILE

BACKEND = f"PyAV {av.__version__}"

# Demuxers that read text or playlists as video. They must not accept a text file as a recording.
_NOT_VIDEO = {"tty", "hls", "concat", "dash", "lrc", "srt", "ass", "webvtt", "subviewer", "sdp"}
# Transfer functions of HDR video (ITU-T H.273, table 3).
_HDR = {16: "PQ", 18: "HLG"}
# Number of packets that are decoded in search of the first frame.
_FIRST_FRAME_PACKETS = 256


# Demuxers of streams without a container, which have no clock: FFmpeg assumes a rate.
_RAW = {"h264", "hevc", "vvc", "mjpeg", "m4v", "mpegvideo", "h263", "h261", "vc1", "obu", "cavsvideo", "dirac", "dnxhd"}


@contextmanager
def opened(path: str, number: int | None = None) -> Iterator[tuple[Any, Any]]:
    """Open a video file, and yield its container and a video stream.

    Args:
        path: Path of the file.
        number: Number of the video stream, from 0; None chooses as players do.

    Raises:
        InputError: If the file has no video that can be read; the message states the reason.
    """
    _check_is_file(path)
    with InputFile(path) as file, container_of(file) as container:
        if set(container.format.name.split(",")) & _NOT_VIDEO:
            raise InputError(f"{path}: contains text or a playlist, not video.", backend=BACKEND)
        if container.format.name.endswith("_pipe") or container.format.name == "image2":
            raise InputError(f"{path}: contains a still image, not video.", backend=BACKEND)
        stream = container.streams.best("video")
        if stream is None or stream.disposition & av.stream.Disposition.attached_pic:
            fault = _mp4_fault(path)
            if fault is not None and fault.cut:
                raise InputError(f"{path}: {fault.reason}", backend=BACKEND)
            kinds = sorted({other.type for other in container.streams}) or ["no"]
            raise InputError(f"{path}: has no video stream, only {' and '.join(kinds)} streams.", backend=BACKEND)
        if number is not None:
            videos = video_streams(container)
            if number >= len(videos):
                count = "1 video stream" if len(videos) == 1 else f"{len(videos)} video streams"
                raise InputError(
                    f"{path}: has {count}, and stream {number} is to be read, counted from 0. Correct study.stream or "
                    "study.crops.",
                    backend=BACKEND,
                )
            stream = videos[number]
        if stream.codec_context is None:
            raise InputError(f"{path}: this FFmpeg has no decoder for its video.", backend=BACKEND)
        yield container, stream


def video_streams(container: Any) -> list[Any]:
    """Return the video streams of a container, without cover images."""
    cover = av.stream.Disposition.attached_pic
    return [stream for stream in container.streams.video if not stream.disposition & cover]


class InputFile:
    """A file for FFmpeg to read, which distinguishes errors of the system from damaged content.

    FFmpeg treats a read error as the end of the file, or as damage. So the first error is kept. `check` raises it, and
    so does the end of the `with` block.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        # FFmpeg uses only the suffix of the name. The name on the disk may not be valid text.
        self.name = "input" + os.path.splitext(path)[1].encode("utf-8", "replace").decode()
        self._problem: InputError | None = None
        with explained_read_errors(path):
            self._file = io.FileIO(path)

    def __enter__(self) -> InputFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self.close()
        # If reading is stopped early, errors do not matter.
        if error is not self._problem and not isinstance(error, GeneratorExit):
            self.check()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def check(self) -> None:
        """Raise the first read error, if any."""
        if self._problem is not None:
            raise self._problem

    def read(self, size: int) -> bytes:
        """Read up to `size` bytes; none after an error."""
        if self._problem is not None:
            return b""
        try:
            return self._file.read(size) or b""
        except OSError as error:
            # Not raised here: FFmpeg may drop it, and PyAV would raise it in the next call, for whatever file that is.
            self._problem = read_error(self.path, error)
            return b""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a byte position."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Return the position of the next byte."""
        return self._file.tell()


def container_of(file: InputFile) -> Any:
    """Open a container; raises InputError with the reason if FFmpeg cannot."""
    try:
        # With this option, playlists cannot refer to other protocols.
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
    path: str, container: Any, stream: Any, *, see: Callable[[Any], None] | None = None, rate: float = 0.0
) -> tuple[PacketIndex, Look]:
    """Number the packets of a stream, and decode packets until the first frame.

    Args:
        path: Path of the file, for errors.
        container: Opened container.
        stream: Its video stream.
        see: Called with every packet.
        rate: Frames per second of a stream without a clock; 0 uses the rate that FFmpeg assumes.

    Returns:
        The packets, and the properties of the first frame.

    Raises:
        InputError: If the stream has no frame.
    """
    first: list[Any] = []
    tried = 0

    def look_at(packet: Any) -> None:
        nonlocal tried
        if see is not None:
            see(packet)
        # A video cannot be used without its frame size, so the search continues.
        sized = stream.codec_context.height > 0 and stream.codec_context.width > 0
        if not first and (tried < _FIRST_FRAME_PACKETS or not sized):
            tried += 1
            with suppress(av.error.FFmpegError):
                first.extend(packet.decode())

    index = read_packets(container, stream, see=look_at)
    if not index.num_frames:
        why = f" ({'; '.join(index.warnings)})" if index.warnings else ""
        raise InputError(f"{path}: has a video stream without a single frame{why}.", backend=BACKEND)
    if container.format.name in _RAW:
        index = _at_rate(index, rate)
    if not first:
        context = stream.codec_context
        if not (context.height > 0 and context.width > 0):
            raise InputError(
                f"{path}: none of its {tried} packets decodes to a frame, and nothing in it states the frame size. "
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


def _at_rate(index: PacketIndex, rate: float) -> PacketIndex:
    """Place the frames of a stream without a clock evenly: at a rate, or at the one that FFmpeg assumed."""
    if rate:
        ticks = np.arange(index.num_frames) / (rate * float(index.time_base))
        return replace(index, ticks=ticks, last_duration=0.0, warnings=())
    assumed = float(1 / (np.median(np.diff(index.ticks)) * float(index.time_base))) if index.num_frames > 1 else 25.0
    warning = (
        f"the stream has no clock: {assumed:.6g} frames per second are assumed. Set raw_rate under [study] to the rate of "
        "the camera"
    )
    return replace(index, warnings=(warning,))


def _check_is_file(path: str) -> None:
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
        return "contains text, not video."
    return f"is not a video that FFmpeg can read ({error.strerror}); it is damaged or of another kind."


@dataclass(frozen=True)
class _Mp4Fault:
    reason: str
    cut: bool


def _mp4_fault(path: str) -> _Mp4Fault | None:
    """Describe the damage of an MP4 or MOV file without video; None for other files.

    Reads the top-level boxes (ISO/IEC 14496-12, section 4.2).
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
