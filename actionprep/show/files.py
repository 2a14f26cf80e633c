"""Write a picture or film so that it is there whole or not at all."""

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
    """A name beside `path` to write to; it takes the place of `path` when the block ends without an error.

    Raises SetupError when the disk refuses.
    """
    draft = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield no_link(draft)
        os.replace(draft, path)
    except OSError as error:
        raise SetupError(
            f"Cannot write {path}: {error.strerror or error}. Choose another place with --out, or free some room."
        ) from error
    finally:
        discard(draft)


def write_image(picture: np.ndarray, path: Path) -> Path:
    """Write (H, W, 3) uint8 RGB as PNG."""
    import cv2

    if path.suffix.lower() != ".png":
        raise UserError(f"A picture is written as .png, not as {path.name}.")
    encoded, data = cv2.imencode(".png", np.ascontiguousarray(picture[..., ::-1]))
    assert encoded
    with atomic_write(path) as draft:
        draft.write_bytes(data.tobytes())
    return path
