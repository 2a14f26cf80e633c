"""Write a csv table to annotate segments in: one row per recording, with its length."""

from __future__ import annotations

import csv
from pathlib import Path

from actionprep.datasets.catalog import Catalog
from actionprep.errors import SetupError, UserError


def write_template(catalog: Catalog, path: Path) -> None:
    """Write a table with the columns recording, onset, offset, label and length, for study.segments.

    Rows without onset, offset and label are no segments; copy a row to annotate several. The length, in seconds, is the
    end of the last frame of the longest view on the recording's clock.

    Args:
        catalog: The recordings.
        path: File to write.

    Raises:
        UserError: If the file exists.
        SetupError: If it cannot be written.
    """
    try:
        with open(path, "x", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["recording", "onset", "offset", "label", "length"])
            for recording in catalog.recordings:
                ends = [view.span[1] for view in catalog.views_of(recording.id) if view.status == "ok"]
                writer.writerow([recording.id, "", "", "", f"{max(ends):.3f}" if ends else ""])
    except FileExistsError:
        raise UserError(f"{path} exists and may have annotations. Give the template another name.") from None
    except OSError as error:
        raise SetupError(f"Cannot write {path}: {error.strerror or error}.") from error
