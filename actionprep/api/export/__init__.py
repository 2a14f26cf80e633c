"""Write stores, snippets, poses and tracks in formats of other programs, one file per kind of export."""

from __future__ import annotations

from actionprep.api.export.hdf5 import Hdf5Export, export_hdf5
from actionprep.api.export.npz import NpzExport, export_npz
from actionprep.api.export.poses import PosesExport, export_poses
from actionprep.api.export.tapvid import export_tapvid

__all__ = ["Hdf5Export", "NpzExport", "PosesExport", "export_hdf5", "export_npz", "export_poses", "export_tapvid"]
