"""Read stored tracks: what is raw on the disk becomes a yes or no here."""

from __future__ import annotations

from typing import Literal

import numpy as np


def visible(
    visibility: np.ndarray,
    confidence: np.ndarray,
    *,
    rule: Literal["visibility", "visibility*confidence"] = "visibility",
    above: float = 0.5,
) -> np.ndarray:
    """Which points can be seen, bool, of any shape.

    rule, above: the attributes visible_rule and visible_above of the item, as the tracker's authors have them; another
    threshold is as good. Points in frames after the end of the view are never visible.

    Raises ValueError for a rule that is not known.
    """
    if rule == "visibility":
        return visibility > above
    if rule == "visibility*confidence":
        return visibility * confidence > above
    raise ValueError(f"No rule '{rule}' for visible points. Rules: visibility, visibility*confidence.")
