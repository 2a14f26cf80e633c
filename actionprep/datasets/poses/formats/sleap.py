"""SLEAP files: analysis HDF5, labels (.slp) and analysis csv."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actionprep.datasets.poses.formats.content import Damaged, check_span, going_on, numbers, whole_numbers
from actionprep.datasets.poses.formats.safe_h5 import H5, open_h5
from actionprep.datasets.poses.individuals import track_ids
from actionprep.datasets.poses.sequence import PoseItem, PoseSequence
from actionprep.datasets.poses.skeletons import layout_of_names
from actionprep.datasets.poses.skeletons import skeleton as layout_of
from actionprep.errors import InputError, name_list

# Before this version of the file, (0, 0) is the corner of the first pixel and not its center.
_CENTERED_FROM = 1.1
_USER = 0  # type of an instance that was labeled by hand


def read_sleap(
    path: str | Path,
    *,
    skeleton: str | None = None,
    image_size: Sequence[int] | None = None,
    damaged: Damaged | None = None,
) -> Iterator[PoseItem]:
    """Read the recordings of one SLEAP file.

    Coordinates are pixels, with (0, 0) at the center of the first pixel; those of labels before version 1.1 are
    converted. Joints and limbs are those of the file. The score is the one of the point, and 1 for points labeled by
    hand. The number of a person is that of its track. In labels, an instance labeled by hand replaces the predicted one
    that it corrects, and each video is a recording with the name of its file; other files are one recording.

    Args:
        path: Analysis file (.h5, .csv) or labels (.slp).
        skeleton: Layout of the joints; without it, the layout of the file.
        image_size: Height and width in pixels.
        damaged: Called for each recording that cannot be read; without it, the first error is raised.

    Yields:
        One item per recording.

    Raises:
        InputError: If the file is damaged or of another tool.
    """
    path = Path(path)
    if path.suffix.lower() == ".csv":
        yield _csv(path, skeleton, image_size)
        return
    with open_h5(path) as file:
        if "tracks" in file and "node_names" in file:
            yield _analysis(file, skeleton, image_size)
        elif "instances" in file and "metadata" in file:
            yield from _labels(file, skeleton, image_size, damaged)
        else:
            raise InputError(
                f"{path} is neither an analysis file nor labels of SLEAP. It has {', '.join(file.names()) or 'nothing'}."
            )


def _recording(path: Path) -> str:
    return path.name.removesuffix(path.suffix).removesuffix(".analysis")


def _layout(names: Sequence[str], limbs: Sequence[Sequence[int]], skeleton: str | None, path: Path) -> str:
    if skeleton is None:
        pairs = [(int(a), int(b)) for a, b in limbs]
        return layout_of_names(names, name="sleap", limbs=pairs, source=path.name).name
    if layout_of(skeleton).num_joints != len(names):
        raise InputError(
            f"{path} has {len(names)} nodes, and skeleton '{skeleton}' has {layout_of(skeleton).num_joints} joints."
        )
    return skeleton


def _scores(points: NDArray[np.float64], score: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scores (T, M, K) of points; an instance without any score was labeled by hand, and its points have 1."""
    finite = np.isfinite(points).all(-1)
    known = np.nan_to_num(score)
    by_hand = ~(known > 0).any(-1, keepdims=True)
    return np.where(finite, np.where(by_hand, 1.0, known.clip(0)), 0)


def _analysis(file: H5, skeleton: str | None, image_size: Sequence[int] | None) -> PoseItem:
    names = file.texts("node_names")
    tracks = numbers(file.read("tracks"), "'tracks'", str(file.path))
    # (tracks, 2, nodes, frames) as Matlab reads it, or the other way around.
    if tracks.ndim == 4 and tracks.shape[1] == 2 and tracks.shape[2] == len(names):
        points, turned = tracks.transpose(3, 0, 2, 1), False
    elif tracks.ndim == 4 and tracks.shape[2] == 2 and tracks.shape[1] == len(names):
        points, turned = tracks.transpose(0, 3, 1, 2), True
    else:
        raise InputError(
            f"'tracks' in {file.path} has the shape {tracks.shape}; expected (tracks, 2, {len(names)}, frames)."
        )
    score = np.full(points.shape[:3], np.nan)
    if "point_scores" in file:
        stored = numbers(file.read("point_scores"), "'point_scores'", str(file.path))
        stored = stored.transpose(0, 2, 1) if turned and stored.ndim == 3 else stored
        stored = stored.transpose(2, 0, 1) if not turned and stored.ndim == 3 else stored
        if stored.shape != score.shape:
            raise InputError(f"'point_scores' in {file.path} do not fit 'tracks'.")
        score = stored
    limbs = file.read("edge_inds") if "edge_inds" in file else np.zeros((0, 2), np.int64)
    limbs = limbs.T if limbs.ndim == 2 and limbs.shape[1] != 2 else limbs
    if limbs.size and (limbs.ndim != 2 or limbs.dtype.kind not in "iu"):
        raise InputError(f"'edge_inds' in {file.path} must be pairs of nodes.")
    layout = _layout(names, limbs.reshape(-1, 2).tolist(), skeleton, file.path)
    poses = _sequence(points, _scores(points, score), layout, image_size, np.arange(len(points)), file.path)
    return PoseItem(_recording(file.path), poses, extra={"file_per_frame": True})


def _sequence(
    points: NDArray[np.float64],
    score: NDArray[np.float64],
    layout: str,
    image_size: Sequence[int] | None,
    index: NDArray[np.int64],
    path: Path,
) -> PoseSequence:
    track = np.where((score > 0).any(-1), np.arange(points.shape[1]), -1)
    return PoseSequence.of(
        points,
        score,
        skeleton=layout,
        track_id=track,
        image_size=image_size,
        frame_index=index,
        where=str(path),
    )


def _labels(
    file: H5, skeleton: str | None, image_size: Sequence[int] | None, damaged: Damaged | None
) -> Iterator[PoseItem]:
    about = file.attributes("metadata")
    try:
        metadata = json.loads(about["json"])
        version = float(about.get("format_id", 1.0))
        all_nodes = [str(node["name"]) for node in metadata["nodes"]]
        ids = [int(node["id"]) for node in metadata["skeletons"][0]["nodes"]]
        nodes = [all_nodes[id] for id in ids]
        links = [
            (ids.index(int(link["source"])), ids.index(int(link["target"])))
            for link in metadata["skeletons"][0].get("links", [])
            if _is_limb(link)
        ]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise InputError(f"The skeleton in {file.path} cannot be read: {type(error).__name__}: {error}.") from None
    layout = _layout(nodes, links, skeleton, file.path)
    frames, instances = file.read("frames"), file.read("instances")
    points, predicted = file.read("points"), file.read("pred_points")
    shift = 0.0 if version >= _CENTERED_FROM else 0.5
    names = _track_names(file)
    ids = track_ids(names)
    videos = file.texts("videos_json") if "videos_json" in file else []
    for video in sorted(set(frames["video"].tolist())):
        recording = _video_name(videos, video, file.path)
        with going_on(recording, damaged):
            rows = frames[frames["video"] == video]
            yield _video(
                rows, instances, points, predicted, shift, layout, len(nodes), ids, recording, image_size, file.path
            )


def _is_limb(link: Mapping[str, Any]) -> bool:
    """Whether a link is a limb (type 1); a pair of mirrored nodes has type 2.

    The first link of a type has its number in `py/reduce`, as jsonpickle writes it. Later ones refer to it by `py/id`.
    """
    kind = link.get("type")
    if not isinstance(kind, dict):
        return True
    if "py/reduce" in kind:
        return bool(kind["py/reduce"][1]["py/tuple"][0] == 1)
    return bool(kind.get("py/id", 1) == 1)


def _track_names(file: H5) -> list[str]:
    """Names of the tracks; SLEAP stores each as a list of its first frame and its name."""
    names: list[str] = []
    for text in file.texts("tracks_json") if "tracks_json" in file else []:
        try:
            names.append(str(json.loads(text)[1]))
        except (IndexError, KeyError, TypeError, ValueError):
            return []
    return names


def _video_name(videos: list[str], number: int, path: Path) -> str:
    """Name of a video's file without its suffix; the file's own name where there is one video or no name."""
    if len(videos) < 2:
        return _recording(path)
    try:
        name = json.loads(videos[number])["backend"]["filename"]
        return PurePosixPath(str(name).replace("\\", "/")).stem or f"video{number}"
    except (IndexError, KeyError, TypeError, ValueError):
        return f"video{number}"


def _video(
    frames: NDArray[Any],
    instances: NDArray[Any],
    points: NDArray[Any],
    predicted: NDArray[Any],
    shift: float,
    layout: str,
    num_nodes: int,
    ids: Sequence[int],
    recording: str,
    image_size: Sequence[int] | None,
    path: Path,
) -> PoseItem:
    frames = frames[np.argsort(frames["frame_idx"], kind="stable")]
    index = frames["frame_idx"].astype(np.int64)
    if (np.diff(index) == 0).any():
        raise InputError(f"{path} has frame {int(index[:-1][np.diff(index) == 0][0])} of '{recording}' twice.")
    check_span(index, str(path))
    people: list[list[tuple[int, NDArray[np.float64]]]] = []
    for frame in frames:
        start, end = int(frame["instance_id_start"]), int(frame["instance_id_end"])
        if not 0 <= start <= end <= len(instances):
            raise InputError(
                f"{path} has instances {start} to {end} in frame {int(frame['frame_idx'])}, beyond its own."
            )
        chosen = instances[start:end]
        by_hand = chosen[chosen["instance_type"] == _USER]
        corrected = set(by_hand["from_predicted"].tolist())
        tracks = {track for track in by_hand["track"].tolist() if track >= 0}
        shown = [
            instance
            for instance in chosen
            if instance["instance_type"] == _USER
            or (int(instance["instance_id"]) not in corrected and int(instance["track"]) not in tracks)
        ]
        people.append(
            [(int(instance["track"]), _points(instance, points, predicted, num_nodes, path)) for instance in shown]
        )
    slots = max([1, *(len(frame) for frame in people)])
    rows = np.full((len(people), slots, num_nodes, 3), np.nan)
    track = np.full((len(people), slots), -1, np.int64)
    for at, frame_people in enumerate(people):
        for slot, (number, joints) in enumerate(frame_people):
            rows[at, slot] = joints
            track[at, slot] = ids[number] if 0 <= number < len(ids) else number
    xy = rows[..., :2] - shift
    score = np.where(np.isfinite(xy).all(-1), np.nan_to_num(rows[..., 2]), 0)
    track[~(score > 0).any(-1)] = -1
    poses = PoseSequence.of(
        xy, score, skeleton=layout, track_id=track, image_size=image_size, frame_index=index, where=str(path)
    )
    return PoseItem(recording, poses)


def _points(
    instance: Any, points: NDArray[Any], predicted: NDArray[Any], num_nodes: int, path: Path
) -> NDArray[np.float64]:
    """Points (K, 3) of an instance: x, y and score, NaN where not visible."""
    by_hand = instance["instance_type"] == _USER
    source = points if by_hand else predicted
    start, end = int(instance["point_id_start"]), int(instance["point_id_end"])
    if not 0 <= start <= end <= len(source) or end - start != num_nodes:
        raise InputError(f"{path} has an instance of points {start} to {end}; expected {num_nodes} of {len(source)}.")
    rows = source[start:end]
    score = np.ones(num_nodes) if by_hand else rows["score"].astype(np.float64).clip(0)
    seen = rows["visible"] if by_hand else np.ones(num_nodes, bool)
    joints = np.stack([rows["x"].astype(np.float64), rows["y"].astype(np.float64), score], -1)
    return np.where(seen[:, None], joints, np.nan)


def _csv(path: Path, skeleton: str | None, image_size: Sequence[int] | None) -> PoseItem:
    import pandas as pd

    try:
        table = pd.read_csv(path, dtype={"track": str})
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a readable csv file: {error}.") from None
    columns = [str(name) for name in table.columns]
    names = [match[1] for name in columns if (match := re.fullmatch(r"(.+)\.x", name))]
    wanted = ["frame_idx", *(f"{name}.y" for name in names)]
    lost = [name for name in wanted if name not in columns]
    if not names or lost:
        raise InputError(f"{path} has no column '{lost[0] if lost else '<node>.x'}'. It has {name_list(columns, 12)}.")
    layout = _layout(names, (), skeleton, path)
    frames = whole_numbers(table["frame_idx"], "The column 'frame_idx'", str(path))
    check_span(frames, str(path))
    tracks = table["track"].fillna("").tolist() if "track" in columns else [""] * len(table)
    known = {name: number for number, name in enumerate(dict.fromkeys(name for name in tracks if name))}
    index, rows = np.unique(frames, return_inverse=True)
    # Persons without a track have slots behind those with one, in the order of the file.
    slots = np.zeros(len(frames), np.int64)
    untracked: dict[int, int] = {}
    for at, (row, name) in enumerate(zip(rows.tolist(), tracks, strict=True)):
        slots[at] = known[name] if name else len(known) + untracked.get(row, 0)
        untracked[row] = untracked.get(row, 0) + (not name)
    shape = (len(index), int(slots.max(initial=0)) + 1, len(names))
    points, score = np.full((*shape, 2), np.nan), np.full(shape, np.nan)
    if len(set(zip(rows.tolist(), slots.tolist(), strict=True))) != len(rows):
        raise InputError(f"{path} has a track twice in one frame.")
    for joint, name in enumerate(names):
        for axis, letter in enumerate("xy"):
            points[rows, slots, joint, axis] = numbers(
                table[f"{name}.{letter}"], f"The column '{name}.{letter}'", str(path)
            )
        if f"{name}.score" in columns:
            score[rows, slots, joint] = numbers(table[f"{name}.score"], f"The column '{name}.score'", str(path))
    score = _scores(points, score)
    track = np.where((score > 0).any(-1) & (np.arange(shape[1]) < len(known)), np.arange(shape[1]), -1)
    poses = PoseSequence.of(
        points, score, skeleton=layout, track_id=track, image_size=image_size, frame_index=index, where=str(path)
    )
    return PoseItem(_recording(path), poses)
