"""Damage for bytes that tests write to files."""

from __future__ import annotations


def flip(data: bytes, at: int, bit: int) -> bytes:
    """Return a copy of the data with one bit of the byte at `at` flipped."""
    damaged = bytearray(data)
    damaged[at] ^= 1 << bit
    return bytes(damaged)
