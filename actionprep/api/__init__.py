"""API for notebooks and commands: open, plan and build studies, read products, and predict new videos."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

_NAMES = {
    "actionprep.api.bouts": (
        "BoutReport",
        "annotated_bouts",
        "annotator_agreement",
        "predicted_bout_report",
    ),
    "actionprep.api.evaluate": (
        "check_tracks",
        "evaluate_masks",
        "evaluate_poses",
        "evaluate_tracks",
    ),
    "actionprep.api.export": (
        "Hdf5Export",
        "NpzExport",
        "PosesExport",
        "export_hdf5",
        "export_npz",
        "export_poses",
        "export_tapvid",
    ),
    "actionprep.api.listings": (
        "format_example",
        "list_formats",
        "list_skeletons",
    ),
    "actionprep.api.multiview": ("multiview_tracks",),
    "actionprep.api.new_study": (
        "make_demo",
        "make_study",
    ),
    "actionprep.api.pose_import": (
        "ImportedPoses",
        "import_poses",
        "store_official_splits",
    ),
    "actionprep.api.predict": (
        "Prediction",
        "predict_recordings",
        "predict_videos",
    ),
    "actionprep.api.study": (
        "Study",
        "open_study",
        "settings_models",
    ),
    "actionprep.api.sync": (
        "Sync",
        "save_sync",
        "sync_views",
    ),
    "actionprep.api.video_groups": (
        "group_videos",
        "recording_name",
    ),
    "actionprep.datasets.multiview": ("MultiviewTracks",),
    "actionprep.datasets.products.tracks": ("Tracks",),
}
"""Public names by module. A module is imported on first use of a name, because a command needs few of them."""

_MODULES = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
