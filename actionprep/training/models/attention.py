"""The transformer parts that several families share: attention, the pre-norm block, stochastic depth."""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from actionprep.errors import UserError

Bias = Literal["all", "query_value", "none"]
Activation = Literal["gelu", "gelu_tanh", "relu"]
Start = Literal["normal", "xavier"]


class Attention(nn.Module):
    """Multi-head self-attention through `scaled_dot_product_attention`.

    x (B, L, D) → (B, L, D) by `forward`; x (B, T, P, D) → (B, T, P, D) by `along_time`.

    Query, key and value weights lie in one matrix `qkv`, as in timm's ViT and in the published TimeSformer and
    MotionBERT weights. bias: "all" gives q, k and v a bias, "query_value" leaves the key's out (VideoMAE; softmax
    cannot see it), "none" has none. head_width: width of one head; the published ViViT-2 has heads as wide as the
    model, everybody else width / heads.
    """

    q_bias: nn.Parameter | None
    v_bias: nn.Parameter | None

    def __init__(
        self, width: int, heads: int, *, head_width: int | None = None, bias: Bias = "all", dropout: float = 0.0
    ) -> None:
        super().__init__()
        if head_width is None:
            if width % heads:
                raise UserError(
                    f"Attention heads share the model's width evenly, and {heads} heads do not divide a width of "
                    f"{width}. Choose a width that is a multiple of the number of heads."
                )
            head_width = width // heads
        self.heads = heads
        self.head_width = head_width
        self.dropout = dropout
        inner = heads * head_width
        self.qkv = nn.Linear(width, 3 * inner, bias=bias == "all")
        if bias == "query_value":
            self.q_bias = nn.Parameter(torch.zeros(inner))
            self.v_bias = nn.Parameter(torch.zeros(inner))
        else:
            self.q_bias = self.v_bias = None
        self.proj = nn.Linear(inner, width)

    def _qkv_bias(self) -> Tensor | None:
        if self.q_bias is None or self.v_bias is None:
            return self.qkv.bias
        return torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])

    def forward(self, x: Tensor, *, mask: Tensor | None = None, keep: int | None = None) -> Tensor:
        """Each token attends to all tokens of its sequence.

        mask: bool, True where a query may see a key, broadcastable to (B, heads, L, L).
        keep: answer the first tokens only, (B, keep, D): what a last block needs whose class token alone is read.
        """
        batch, length, _ = x.shape
        weight, bias = self.qkv.weight, self._qkv_bias()
        if keep is None:
            keep = length
            q, k, v = F.linear(x, weight, bias).view(batch, length, 3, self.heads, self.head_width).unbind(2)
        else:
            inner = self.heads * self.head_width
            q = F.linear(x[:, :keep], weight[:inner], None if bias is None else bias[:inner])
            q = q.view(batch, keep, self.heads, self.head_width)
            k, v = (
                F.linear(x, weight[inner:], None if bias is None else bias[inner:])
                .view(batch, length, 2, self.heads, self.head_width)
                .unbind(2)
            )
        out = F.scaled_dot_product_attention(
            q.transpose(1, 2),
            k.transpose(1, 2),
            v.transpose(1, 2),
            attn_mask=mask,
            dropout_p=self.dropout if self.training else 0.0,
        )
        return self.proj(out.transpose(1, 2).reshape(batch, keep, -1))

    def along_time(self, x: Tensor, *, mask: Tensor | None = None, then: nn.Linear | None = None) -> Tensor:
        """Each token attends to the tokens at its own place in all T steps.

        x (B, T, P, D), mask bool broadcastable to (B, P * heads, T, T). Projecting q, k and v apart lets places and
        heads fold into one axis, so that nothing is copied to bring time last.
        then: a linear layer right behind the output projection; where there are more tokens than weights in a row, both
        are multiplied into one first.
        """
        batch, steps, places, width = x.shape
        bias = self._qkv_bias()
        weights = self.qkv.weight.chunk(3)
        biases = bias.chunk(3) if bias is not None else (None, None, None)
        q, k, v = (
            F.linear(x, w, b).view(batch, steps, places * self.heads, self.head_width).transpose(1, 2)
            for w, b in zip(weights, biases, strict=True)
        )
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=self.dropout if self.training else 0.0)
        out = out.transpose(1, 2).reshape(batch, steps, places, -1)
        if then is None:
            return self.proj(out)
        # What is exported is to work for any batch: no choice by its size.
        if torch.compiler.is_exporting() or batch * steps * places <= width:
            return then(self.proj(out))
        return F.linear(out, then.weight @ self.proj.weight, F.linear(self.proj.bias, then.weight, then.bias))


class Mlp(nn.Module):
    """Two linear layers with an activation between: x (..., D) → (..., D)."""

    def __init__(
        self,
        width: int,
        hidden: int,
        *,
        activation: Activation = "gelu",
        dropout: float = 0.0,
        activate_output: bool = False,
    ) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)
        self.activation = activation
        self.dropout = dropout
        self.activate_output = activate_output

    def _act(self, x: Tensor) -> Tensor:
        if self.activation == "relu":
            return F.relu(x)
        return F.gelu(x, approximate="tanh" if self.activation == "gelu_tanh" else "none")

    def forward(self, x: Tensor) -> Tensor:
        """Apply both layers."""
        x = self._act(self.fc1(x))
        if self.dropout:
            x = F.dropout(x, self.dropout, self.training)
        x = self.fc2(x)
        if self.activate_output:
            x = self._act(x)
        if self.dropout:
            x = F.dropout(x, self.dropout, self.training)
        return x


class DropPath(nn.Module):
    """Stochastic depth: in training, drop a branch for whole samples (axis 0) with probability p and scale the rest.

    Huang et al., "Deep Networks with Stochastic Depth", ECCV 2016.
    """

    def __init__(self, p: float = 0.0) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Drop whole samples, in training only."""
        if not self.training or self.p == 0.0:
            return x
        keep = torch.empty((x.shape[0], *(1,) * (x.ndim - 1)), dtype=x.dtype, device=x.device).bernoulli_(1 - self.p)
        return x * keep.div_(1 - self.p)

    def extra_repr(self) -> str:
        """Shown when the module is printed."""
        return f"p={self.p}"


class Block(nn.Module):
    """Pre-norm transformer block: x (B, L, D) → (B, L, D)."""

    def __init__(
        self,
        width: int,
        heads: int,
        hidden: int,
        *,
        head_width: int | None = None,
        bias: Bias = "all",
        activation: Activation = "gelu",
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        drop_path: float = 0.0,
        layer_norm_eps: float = 1e-6,
        activate_output: bool = False,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=layer_norm_eps)
        self.attn = Attention(width, heads, head_width=head_width, bias=bias, dropout=attention_dropout)
        self.norm2 = nn.LayerNorm(width, eps=layer_norm_eps)
        self.mlp = Mlp(width, hidden, activation=activation, dropout=dropout, activate_output=activate_output)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, *, mask: Tensor | None = None, keep: int | None = None) -> Tensor:
        """Attention, then MLP; mask and keep as in Attention."""
        out = self.drop_path(self.attn(self.norm1(x), mask=mask, keep=keep))
        x = (x if keep is None else x[:, :keep]) + out
        return x + self.drop_path(self.mlp(self.norm2(x)))


def drop_path_rates(rate: float, depth: int) -> list[float]:
    """Stochastic depth that grows linearly from 0 in the first block to `rate` in the last."""
    return [rate * i / max(depth - 1, 1) for i in range(depth)]


def init_transformer(module: nn.Module, *, start: Start = "normal") -> None:
    """Start values: linear weights as `start` says, biases zero, norms the identity.

    start: "normal" draws weights with a deviation of 0.02, as all published models of ours begin: right for widths near
    1 / 0.02², while in a narrow model attention is then all but even and branches add next to nothing. "xavier" fits the
    width (Glorot and Bengio, AISTATS 2010, eq. 16).
    """
    if start not in get_args(Start):
        raise UserError(f"Weights start from one of {', '.join(get_args(Start))}, and start is {start!r}.")
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Conv2d | nn.Conv3d):
            if start == "xavier":
                # Convolutions here have stride = kernel: each output sees all inputs of its patch, once.
                nn.init.xavier_uniform_(part.weight.view(len(part.weight), -1))
            else:
                nn.init.trunc_normal_(part.weight, std=0.02)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.LayerNorm):
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)
