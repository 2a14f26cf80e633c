"""API for notebooks and commands: open, plan and build studies, read products, and predict new videos."""

from __future__ import annotations

from actionprep.api.bouts import BoutReport, annotated_bouts, annotator_agreement, predicted_bout_report
from actionprep.api.evaluate import check_tracks, evaluate_masks, evaluate_poses, evaluate_tracks
from actionprep.api.export import (
    Hdf5Export,
    NpzExport,
    PosesExport,
    export_hdf5,
    export_npz,
    export_poses,
    export_tapvid,
)
from actionprep.api.listings import format_example, list_formats, list_skeletons
from actionprep.api.multiview import multiview_tracks
from actionprep.api.new_study import make_demo, make_study
from actionprep.api.pose_import import ImportedPoses, import_poses, store_official_splits
from actionprep.api.predict import Prediction, predict_recordings, predict_videos
from actionprep.api.study import Study, open_study, settings_models
from actionprep.api.sync import Sync, save_sync, sync_views
from actionprep.api.video_groups import group_videos, recording_name
from actionprep.datasets.multiview import MultiviewTracks
from actionprep.datasets.products.tracks import Tracks

__all__ = [
    "BoutReport",
    "Hdf5Export",
    "ImportedPoses",
    "MultiviewTracks",
    "NpzExport",
    "PosesExport",
    "Prediction",
    "Study",
    "Sync",
    "Tracks",
    "annotated_bouts",
    "annotator_agreement",
    "check_tracks",
    "evaluate_masks",
    "evaluate_poses",
    "evaluate_tracks",
    "export_hdf5",
    "export_npz",
    "export_poses",
    "export_tapvid",
    "format_example",
    "group_videos",
    "import_poses",
    "list_formats",
    "list_skeletons",
    "make_demo",
    "make_study",
    "multiview_tracks",
    "open_study",
    "predict_recordings",
    "predict_videos",
    "predicted_bout_report",
    "recording_name",
    "save_sync",
    "settings_models",
    "store_official_splits",
    "sync_views",
]
