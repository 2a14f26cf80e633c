"""The product `heatmaps`: poses as Gaussian volumes, its arrays on disk, its writer and its reader."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from actionprep.datasets.poses.skeletons import stored_layout
from actionprep.datasets.products.schema import Array, Product

if TYPE_CHECKING:
    from actionprep.datasets.poses.sequence import PoseSequence
    from actionprep.datasets.store.reader import ItemReader
    from actionprep.datasets.store.writer import Codec, ItemWriter

_SCALE = 1 / 255

HEATMAPS = Product(
    "heatmaps",
    (
        Array(
            "volume",
            "uint8",
            ("time", "channel", "y", "x"),
            None,
            "Gaussians times the score, in shares of 255",
            16,
            note='the setting `chunk` sets the chunk; `persons = "separate"` adds the axis person before channel',
        ),
        Array("index", "int64", ("time",), None, "position in the video"),
        Array("time", "float64", ("time",), "s", "on the recording's clock"),
    ),
    {
        "skeleton": "name of the joint layout, or path of a layout file",
        "layout": "contents of the layout, if it is none of the built-in ones",
        "kind": "joint or limb",
        "channels": "names of the joints or limbs",
        "box": "area that the grid covers: left, top, right, bottom in units of the keypoints, equal for all frames",
        "sigma": "standard deviation in px of the grid",
        "scale": "the volume times this is in [0, 1]",
        "num_frames": "frames",
    },
)


def write_heatmaps(
    item: ItemWriter,
    poses: PoseSequence,
    volumes: Iterable[np.ndarray],
    *,
    kind: str,
    channels: Sequence[str],
    size: tuple[int, int],
    persons: int | None,
    box: np.ndarray,
    sigma: float,
    chunk: int,
    codec: Codec,
) -> None:
    """Write rendered volumes as the arrays and attributes of `HEATMAPS`.

    Args:
        item: The item to write to.
        poses: The poses that were rendered, with times.
        volumes: Parts of the volume in order of time, each (T, [M], C, H, W) uint8.
        kind: "joint" or "limb".
        channels: Names of the C channels.
        size: Height and width of the grid.
        persons: Number of persons M of a volume with separate persons; None for one volume of all.
        box: Left, top, right and bottom of the grid, in units of the keypoints.
        sigma: Standard deviation in px of the grid.
        chunk: Frames per chunk.
        codec: Compression of the volume.
    """
    volume = HEATMAPS["volume"]
    if persons is not None:
        volume = replace(volume, axes=("time", "person", *volume.axes[1:]))
    shape = (*(() if persons is None else (persons,)), len(channels), *size)
    volume.create(item, shape, chunk=chunk, codec=codec)
    for rows in volumes:
        item.append("volume", rows)
    HEATMAPS["index"].write(item, poses.frame_index)
    HEATMAPS["time"].write(item, np.asarray(poses.time))
    item.attributes.update(
        HEATMAPS.attributes_of(
            skeleton=poses.skeleton,
            **stored_layout(poses.skeleton),
            kind=kind,
            channels=list(channels),
            box=[float(value) for value in box],
            sigma=sigma,
            scale=_SCALE,
            num_frames=poses.num_frames,
        )
    )


def read_heatmaps(item: ItemReader, rows: slice | int = slice(None)) -> np.ndarray:
    """Read volumes (T, [M], C, H, W) as float32 in [0, 1].

    Args:
        item: Item of the product `heatmaps`.
        rows: Positions in the item; an integer reads one volume, without the axis of time.
    """
    return item["volume"][rows].astype(np.float32) * np.float32(item.attributes["scale"])
