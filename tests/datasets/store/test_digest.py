"""The content hash depends only on the content."""

from __future__ import annotations

import hashlib

import google_crc32c
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from actionprep.datasets.store.digest import ContentHash


def hash_of(*parts: np.ndarray) -> str:
    content = ContentHash()
    for part in parts:
        content.update(part)
    return content.hexdigest()


@settings(max_examples=30, deadline=None)
@given(cuts=st.lists(st.integers(0, 200_000), max_size=6))
def test_the_way_content_is_cut_up_does_not_matter(cuts: list[int]) -> None:
    content = np.random.default_rng(0).integers(0, 255, 200_000, np.uint8)
    assert hash_of(*np.split(content, sorted(cuts))) == hash_of(content)


def test_it_is_sha256_over_the_crc32c_of_64_kib_pieces_and_the_length() -> None:
    content = np.random.default_rng(1).integers(0, 255, 150_000, np.uint8).tobytes()
    pieces = [content[at : at + 65536] for at in range(0, len(content), 65536)]
    crcs = b"".join(google_crc32c.value(piece).to_bytes(4, "little") for piece in pieces)
    expected = hashlib.sha256(crcs + len(content).to_bytes(8, "little")).hexdigest()
    assert hash_of(np.frombuffer(content, np.uint8)) == expected


def test_a_changed_bit_a_swap_and_zeros_at_the_end_are_seen() -> None:
    content = np.arange(100_000, dtype=np.uint32)
    changed, swapped = content.copy(), content.copy()
    changed[77_777] ^= 1
    swapped[[1, 90_000]] = swapped[[90_000, 1]]
    others = [changed, swapped, np.append(content, np.uint32(0))]
    assert len({hash_of(content), *(hash_of(other) for other in others)}) == 4


def test_shape_and_layout_do_not_matter_but_the_order_of_values_does() -> None:
    content = np.arange(12, dtype=np.int16).reshape(3, 4)
    assert hash_of(content) == hash_of(content.reshape(-1)) == hash_of(np.asfortranarray(content))
    assert hash_of(content) != hash_of(content.T)
