"""Write images and videos atomically: complete or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from actionprep.datasets.atomic_files import atomic_file
from actionprep.errors import SetupError, UserError


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Like `atomic_file`, for results that the user named a place for.

    Raises:
        SetupError: If the file cannot be written.
    """
    try:
        with atomic_file(path) as draft:
            yield draft
    except OSError as error:
        raise SetupError(
            f"Cannot write {path}: {error.strerror or error}. Write to another folder with --out, or free disk space."
        ) from error


def write_image(image: np.ndarray, path: Path) -> Path:
    """Write an RGB image (H, W, 3) uint8 as PNG.

    Raises:
        UserError: If the path does not end in .png.
        SetupError: If the file cannot be written.
    """
    import cv2

    if path.suffix.lower() != ".png":
        raise UserError(f"Images are written as .png files; got {path.name}.")
    encoded, data = cv2.imencode(".png", np.ascontiguousarray(image[..., ::-1]))
    assert encoded
    with atomic_write(path) as draft:
        draft.write_bytes(data.tobytes())
    return path
