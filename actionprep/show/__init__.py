"""Look at what a study holds: contact sheets, films and timelines of any product."""

from __future__ import annotations

from actionprep.show.items import show_item

__all__ = ["show_item"]
