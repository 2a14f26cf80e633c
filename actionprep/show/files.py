"""Write images and videos atomically: complete or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from actionprep.datasets.paths import no_link
from actionprep.errors import SetupError, UserError, discard


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to `path`; it replaces `path` when the block ends without an error.

    Raises:
        SetupError: If the file cannot be written.
    """
    draft = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield no_link(draft)
        os.replace(draft, path)
    except OSError as error:
        raise SetupError(
            f"Cannot write {path}: {error.strerror or error}. Write to another folder with --out, or free disk space."
        ) from error
    finally:
        discard(draft)


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
