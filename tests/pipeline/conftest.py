"""Shared videos of many codecs, and a check that decoding threads end."""

import threading
from collections.abc import Iterator
from pathlib import Path

import av
import pytest
from numbered_videos import COUNT, KINDS, write_numbered


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("videos")
    made = {}
    for name, (codec, options, pixel_format) in KINDS.items():
        if codec in av.codecs_available:
            made[name] = write_numbered(folder / name, codec, COUNT, options=options, pixel_format=pixel_format)
    return made


@pytest.fixture
def _no_thread_stays() -> Iterator[None]:
    yield
    assert not [thread for thread in threading.enumerate() if thread.name == "decode-ahead"]
