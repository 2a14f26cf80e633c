"""Write the annotations of a study, or predictions of a run, in the formats of other tools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from actionprep.datasets.annotation_writers.index import SEGMENT_WRITERS
from actionprep.datasets.annotation_writers.writer import AnnotatedVideo, SegmentWriter
from actionprep.datasets.natural_order import natural_key
from actionprep.datasets.paths import below, safe_name
from actionprep.errors import UserError

if TYPE_CHECKING:
    from actionprep.api.study import Study
    from actionprep.datasets.catalog import Catalog
    from actionprep.datasets.recordings import View
    from actionprep.datasets.segments import Segment


@dataclass(frozen=True)
class AnnotationExport:
    """Written annotations.

    Attributes:
        format: Name of the format.
        files: Written files.
        recordings: Number of recordings.
        segments: Number of segments.
        labels: All labels, in natural order.
        without_frame: Number of segments in which no frame begins; formats that count frames leave them out.
    """

    format: str
    files: tuple[Path, ...]
    recordings: int
    segments: int
    labels: tuple[str, ...]
    without_frame: int = 0

    def document(self) -> dict[str, Any]:
        """Return the result as plain values."""
        return {**vars(self), "files": [str(path) for path in self.files], "labels": list(self.labels)}


def export_annotations(
    study: Study,
    format: str,
    out: str | Path,
    *,
    segments: Mapping[str, Sequence[Segment]] | None = None,
    recordings: Sequence[str] = (),
    layers: Sequence[str] = (),
    annotators: Sequence[str] = (),
    view: str | int | None = None,
    overwrite: bool = False,
) -> AnnotationExport:
    """Write segments in the format of another tool.

    Formats of one file write `out`. Formats with a file per recording write into the folder `out`, each file named after
    its recording or video.

    Args:
        study: The study.
        format: Name of the format; see `actionprep formats`.
        out: File or folder to write.
        segments: Segments by recording instead of the study's annotations, such as predictions.
        recordings: Recordings to write; empty: all with a segment.
        layers: Layers to write; empty: all.
        annotators: Annotators to write; empty: all.
        view: View whose video the files name, by id or number; None: the first readable one of each recording.
        overwrite: Whether existing files are replaced.

    Returns:
        Counts and paths.

    Raises:
        UserError: If there is nothing to write, a file exists, or the format cannot express the segments.
    """
    from actionprep.show.files import atomic_write

    writer = SEGMENT_WRITERS.find(format)
    catalog = study.catalog
    source = catalog.segments if segments is None else segments
    names = [catalog.recording(name).id for name in recordings] or [name for name, own in source.items() if own]
    videos = []
    for name in names:
        own = [
            segment
            for segment in source.get(name, ())
            if (not layers or segment.layer in layers) and (not annotators or segment.annotator in annotators)
        ]
        if own or recordings:
            videos.append(_video(study, catalog, name, own, view))
    if not any(video.segments for video in videos):
        raise UserError(
            "There are no segments to write. Check --recording, --layers and --annotators, and the annotations with "
            "'actionprep show segments'."
        )
    labels = tuple(sorted({segment.label for video in videos for segment in video.segments}, key=natural_key))
    texts = {path: writer.write(own, labels) for path, own in _files(writer, videos, Path(out)).items()}
    existing = [path for path in texts if path.exists()]
    if existing and not overwrite:
        raise UserError(f"{existing[0]} exists. Replace it with --overwrite, or write elsewhere.")
    for path, text in texts.items():
        with atomic_write(path) as draft:
            draft.write_text(text, encoding="utf-8", newline="")
    without = 0
    if writer.counts == "frame":
        without = sum(first == last for video in videos for first, last in map(video.frames_of, video.segments))
    count = sum(len(video.segments) for video in videos)
    return AnnotationExport(format, tuple(texts), len(videos), count, labels, without)


def _files(writer: SegmentWriter, videos: Sequence[AnnotatedVideo], out: Path) -> dict[Path, Sequence[AnnotatedVideo]]:
    """The videos of each file to write."""
    if writer.one_file:
        if out.is_dir():
            raise UserError(f"{out} is a folder. Name a file, such as {out / ('annotations' + writer.suffix)}.")
        return {out: videos}
    if out.is_file():
        raise UserError(f"{out} is a file. Name a folder: {writer.name} has a file per recording.")
    files: dict[Path, Sequence[AnnotatedVideo]] = {}
    for video in videos:
        if writer.name_of == "video":
            path = below(out, *PurePosixPath(video.relative).with_suffix(writer.suffix).parts)
        else:
            path = out / f"{safe_name(video.recording.replace('/', '_'))}{writer.suffix}"
        if path in files:
            other = files[path][0].recording
            raise UserError(
                f"The files of '{other}' and '{video.recording}' would both be {path.name}. Export them one by one with "
                "--recording, into two folders."
            )
        files[path] = [video]
    return files


def _video(
    study: Study, catalog: Catalog, name: str, segments: Sequence[Segment], view: str | int | None
) -> AnnotatedVideo:
    recording = catalog.recording(name)
    readable = [item for item in catalog.views_of(name) if item.status == "ok" and item.num_frames]
    chosen: View | None
    if view is not None:
        chosen = catalog.view(name, view)
    else:
        chosen = next((item for item in readable if item.has_video), None) or next(iter(readable), None)
    span = catalog.span(name)
    last = max((item.offset for item in segments), default=0.0)
    common = {
        "recording": name,
        "segments": tuple(sorted(segments, key=lambda item: (item.onset, item.offset, item.label))),
        "duration_s": span[1] - span[0] if span is not None else last,
        "subject": recording.subject or "",
        "split": recording.split or "",
    }
    if chosen is None:
        return AnnotatedVideo(path=None, relative=name, **common)  # type: ignore[arg-type]
    path = catalog.resolve(chosen.path, study.root).absolute() if chosen.has_video else None
    is_elsewhere = PurePosixPath(chosen.path).is_absolute() or ".." in PurePosixPath(chosen.path).parts
    return AnnotatedVideo(
        path=path,
        relative=name if path is None else path.name if is_elsewhere else chosen.path,
        size=(chosen.width, chosen.height),
        fps=chosen.fps,
        frame_times=chosen.times,
        offset=chosen.offset,
        drift=chosen.drift,
        **common,  # type: ignore[arg-type]
    )
