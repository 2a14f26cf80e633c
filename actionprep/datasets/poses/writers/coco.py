"""Write poses as COCO keypoints JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from actionprep.datasets.poses.skeletons import skeleton
from actionprep.datasets.poses.writers import ViewPoses


def write(path: Path, poses: ViewPoses) -> None:
    """Write one view, with an image per frame and an annotation per person.

    The third number of a joint is COCO's flag: 2 for seen joints, 0 for missing ones. The scores are the list
    `keypoint_scores` of the annotation, which other programs ignore. Track ids are `track_id`.

    Args:
        path: File to write.
        poses: Poses of the view.
    """
    sequence = poses.item.poses
    layout = skeleton(sequence.skeleton)
    size = sequence.image_size
    frames = sequence.frame_index.tolist()
    images: list[dict[str, Any]] = []
    for number in frames:
        image: dict[str, Any] = {"id": number, "file_name": f"frame_{number:06d}.jpg", "frame_id": number}
        if size is not None:
            image |= {"height": size[0], "width": size[1]}
        images.append(image)
    annotations: list[dict[str, Any]] = []
    for frame, slot in np.argwhere(sequence.present).tolist():
        seen = sequence.score[frame, slot] > 0
        flags = np.where(seen, 2, 0)
        triples = np.column_stack([sequence.keypoints[frame, slot].astype(np.float64), flags])
        left, top, right, bottom = sequence.bbox[frame, slot].astype(np.float64).tolist()
        person: dict[str, Any] = {
            "id": len(annotations) + 1,
            "image_id": frames[frame],
            "category_id": 1,
            "keypoints": [int(value) if value.is_integer() else value for value in triples.ravel().tolist()],
            "num_keypoints": int(seen.sum()),
            "keypoint_scores": sequence.score[frame, slot].astype(np.float64).tolist(),
            "bbox": [left, top, right - left, bottom - top],
            "area": (right - left) * (bottom - top),
            "iscrowd": 0,
        }
        if sequence.track_id[frame, slot] >= 0:
            person["track_id"] = int(sequence.track_id[frame, slot])
        annotations.append(person)
    category = {
        "id": 1,
        "name": "person",
        "supercategory": "person",
        "keypoints": list(layout.joints),
        "skeleton": [[a + 1, b + 1] for a, b in layout.limbs],  # COCO counts joints from 1
    }
    document = {
        "info": {"description": f"{poses.item.recording}, view {poses.item.view}"},
        "images": images,
        "annotations": annotations,
        "categories": [category],
    }
    path.write_text(json.dumps(document), encoding="utf-8")
