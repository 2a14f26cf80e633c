from __future__ import annotations

from pathlib import Path

import numpy as np
from recordings import moving_square, write_video

from actionprep.api import make_study
from actionprep.api.run_report import _Images
from actionprep.datasets.catalog import Catalog


def test_images_of_clip_are_from_its_span(tmp_path: Path):
    import cv2

    frames = np.zeros((30, 64, 96, 3), np.uint8)
    frames[15:] = 200
    for label in ("hop", "sway"):
        write_video(tmp_path / "videos" / label / "a.mp4", frames if label == "hop" else moving_square(30), rate=10)
    study, _ = make_study(tmp_path, {"videos": "videos"})
    study.scan()
    catalog = Catalog.read(study.folder.catalog)
    [hop] = [entry.id for entry in catalog.recordings if entry.label == "hop"]
    images = _Images(study.folder, catalog, [])
    dark = [cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) for data in images(hop, 0.0, 1.0)]
    bright = [cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) for data in images(hop, 2.0, 3.0)]
    assert [image.shape for image in dark] == [(96, 144, 3)] * 3
    assert max(image.mean() for image in dark) < 20
    assert min(image.mean() for image in bright) > 180
    assert images("not/there", 0.0, 1.0) == []
    (tmp_path / "videos" / "hop" / "a.mp4").unlink()
    assert images(hop, 0.0, 1.0) == []
