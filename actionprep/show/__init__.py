"""Draw the products of a study: contact sheets, videos and timelines."""

from __future__ import annotations

from actionprep.show.items import show_item

__all__ = ["show_item"]
