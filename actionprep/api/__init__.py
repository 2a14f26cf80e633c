"""What notebooks and the commands call: a study, its plan, its products; what a model says of new videos."""

from __future__ import annotations

from actionprep.api.export import (
    Hdf5Export,
    NpzExport,
    PosesExport,
    export_hdf5,
    export_npz,
    export_poses,
    export_tapvid,
)
from actionprep.api.listings import list_formats, list_skeletons
from actionprep.api.new_study import make_demo, make_study
from actionprep.api.pose_import import ImportedPoses, import_poses, store_official_splits
from actionprep.api.predict import Prediction, predict_recordings, predict_videos
from actionprep.api.study import Study, open_study, settings_models
from actionprep.api.video_groups import group_videos, recording_name
from actionprep.datasets.products.tracks import Tracks

__all__ = [
    "Hdf5Export",
    "ImportedPoses",
    "NpzExport",
    "PosesExport",
    "Prediction",
    "Study",
    "Tracks",
    "export_hdf5",
    "export_npz",
    "export_poses",
    "export_tapvid",
    "group_videos",
    "import_poses",
    "list_formats",
    "list_skeletons",
    "make_demo",
    "make_study",
    "open_study",
    "predict_recordings",
    "predict_videos",
    "recording_name",
    "settings_models",
    "store_official_splits",
]
