"""Recordings of actions into one verified Zarr store, and the store into action classifiers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Study", "Tracks", "open_study"]

if TYPE_CHECKING:
    from actionprep.api import Study, Tracks, open_study


def __getattr__(name: str) -> Any:
    # Imported on first use, so that `import actionprep` costs nothing.
    if name in __all__:
        from actionprep import api

        return getattr(api, name)
    raise AttributeError(f"module 'actionprep' has no attribute '{name}'")
