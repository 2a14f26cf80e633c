"""Tubelets and position tables."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from actionprep.errors import UserError
from actionprep.training.models.tokens import (
    Tubelets,
    resize_space,
    resize_space_time,
    resize_time,
    sincos_positions,
)


def test_tubelets_equal_strided_convolution():
    torch.manual_seed(0)
    tubelets = Tubelets(3, 8, (2, 4, 4))
    clip = torch.randn(2, 3, 4, 8, 12)
    torch.testing.assert_close(tubelets(clip), tubelets.proj(clip).permute(0, 2, 3, 4, 1), rtol=1e-5, atol=1e-5)


def test_flat_tubelets_equal_convolution_per_frame():
    torch.manual_seed(0)
    tubelets = Tubelets(3, 8, (1, 4, 4), flat=True)
    clip = torch.randn(2, 3, 4, 8, 12)
    frames = [tubelets.proj(clip[:, :, t]).permute(0, 2, 3, 1) for t in range(4)]
    torch.testing.assert_close(tubelets(clip), torch.stack(frames, 1), rtol=1e-5, atol=1e-5)


def test_tubelets_reject_partial_tubelets():
    with pytest.raises(UserError, match="multiple of the tubelet of 2 frames x 4 x 4 pixels, got 5 frames of 8 x 10"):
        Tubelets(3, 8, (2, 4, 4))(torch.zeros(1, 3, 5, 8, 10))


def test_resize_keeps_table_of_equal_size():
    table = torch.randn(2, 3, 3, 4)
    assert resize_space_time(table, (2, 3, 3)) is table


def test_resize_space_is_two_dimensional():
    # A table that grows along columns only must do so at any size; 1D resizing of the flattened grid would not.
    table = torch.arange(6.0).view(1, 6, 1).expand(6, 6, 1)
    bigger = resize_space(table, (12, 9))[..., 0]
    torch.testing.assert_close(bigger, bigger[:1].expand(12, 9))
    assert (bigger[0].diff() > 0).all()


@given(st.integers(1, 12), st.integers(1, 12))
def test_resize_time_samples_centers_of_equal_parts(was: int, now: int):
    table = torch.arange(was, dtype=torch.float32).view(was, 1, 1).expand(was, 2, 3)
    got = resize_time(table, now)[:, 0, 0]
    centers = [(i + 0.5) * was / now - 0.5 for i in range(now)]
    expected = torch.tensor([min(max(c, 0.0), was - 1.0) for c in centers])
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_resize_keeps_constant_table():
    table = torch.full((2, 5, 5, 3), 7.0)
    torch.testing.assert_close(resize_space_time(table, (9, 4, 11)), torch.full((9, 4, 11, 3), 7.0))


def test_sincos_positions_match_formula():
    table = sincos_positions(5, 6)
    for p in range(5):
        for i in range(3):
            angle = p / 10000 ** (2 * i / 6)
            assert table[p, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-6)
            assert table[p, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-6)
