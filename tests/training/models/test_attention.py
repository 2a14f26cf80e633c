"""Shared transformer layers, compared with their formulas."""

from __future__ import annotations

import pytest
import torch

from actionprep.errors import UserError
from actionprep.training.models.attention import Attention, Block, DropPath, drop_path_rates, init_transformer


def by_formula(attention: Attention, x: torch.Tensor) -> torch.Tensor:
    bias = attention._qkv_bias()
    q, k, v = (x @ attention.qkv.weight.T + (0 if bias is None else bias)).chunk(3, -1)
    heads = []
    for i in range(attention.heads):
        part = slice(i * attention.head_width, (i + 1) * attention.head_width)
        weights = (q[..., part] @ k[..., part].transpose(-1, -2) / attention.head_width**0.5).softmax(-1)
        heads.append(weights @ v[..., part])
    return torch.cat(heads, -1) @ attention.proj.weight.T + attention.proj.bias


@pytest.mark.parametrize("bias", ["all", "query_value", "none"])
@pytest.mark.parametrize("head_width", [None, 12])
def test_attention_matches_formula(bias: str, head_width: int | None):
    torch.manual_seed(0)
    attention = Attention(12, 3, bias=bias, head_width=head_width)
    if attention.q_bias is not None:
        torch.nn.init.normal_(attention.q_bias)
        torch.nn.init.normal_(attention.v_bias)
    x = torch.randn(2, 5, 12)
    torch.testing.assert_close(attention(x), by_formula(attention, x), rtol=1e-5, atol=1e-5)


def test_along_time_equals_attention_on_moved_axes():
    torch.manual_seed(0)
    attention = Attention(12, 3)
    x = torch.randn(2, 4, 5, 12)
    moved = attention(x.transpose(1, 2).flatten(0, 1)).unflatten(0, (2, 5)).transpose(1, 2)
    torch.testing.assert_close(attention.along_time(x), moved, rtol=1e-5, atol=1e-5)


def test_masked_keys_are_ignored():
    torch.manual_seed(0)
    attention = Attention(12, 3)
    x = torch.randn(1, 5, 12)
    mask = torch.tensor([True, True, True, False, False]).view(1, 1, 1, 5)
    torch.testing.assert_close(attention(x, mask=mask)[:, :3], attention(x[:, :3]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bias", ["all", "query_value", "none"])
def test_keep_returns_the_same_leading_tokens(bias: str):
    torch.manual_seed(0)
    attention = Attention(12, 3, bias=bias)
    x = torch.randn(2, 5, 12)
    torch.testing.assert_close(attention(x, keep=2), attention(x)[:, :2], rtol=1e-5, atol=1e-5)
    block = Block(12, 3, 24)
    torch.testing.assert_close(block(x, keep=1), block(x)[:, :1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("steps", [2, 6])
def test_along_time_merges_the_next_layer(steps: int):
    # 2 x 2 tokens are fewer than the width 12 and 6 x 6 are more: this covers both branches.
    torch.manual_seed(0)
    attention, then = Attention(12, 3), torch.nn.Linear(12, 12)
    x = torch.randn(1, steps, steps, 12)
    torch.testing.assert_close(attention.along_time(x, then=then), then(attention.along_time(x)), rtol=1e-5, atol=1e-5)


def test_heads_must_divide_width():
    with pytest.raises(UserError, match="5 heads do not divide a width of 12"):
        Attention(12, 5)


def test_drop_path_drops_samples_and_keeps_mean():
    torch.manual_seed(0)
    out = DropPath(0.25)(torch.ones(4000, 3))
    assert ((out == 0).all(1) | (out == 1 / 0.75).all(1)).all()
    assert out.mean() == pytest.approx(1.0, abs=0.05)
    assert torch.equal(DropPath(0.25).eval()(out), out)


def test_drop_path_rates_grow_linearly():
    assert drop_path_rates(0.2, 3) == [0.0, 0.1, 0.2]
    assert drop_path_rates(0.2, 1) == [0.0]


def test_init_transformer_rejects_unknown_start():
    with pytest.raises(UserError, match="must be one of normal, xavier, got 'zero'"):
        init_transformer(Block(8, 2, 16), start="zero")
