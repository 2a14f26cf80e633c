"""Transformer layers shared by the model families: attention, the pre-norm block, stochastic depth."""

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
    """Multi-head self-attention with `scaled_dot_product_attention`.

    Shapes: `forward` maps (B, L, D) to (B, L, D). `along_time` maps (B, T, P, D) to (B, T, P, D).

    Query, key and value weights are one matrix `qkv`, as in timm's ViT and in the published TimeSformer and MotionBERT
    weights.

    Args:
        width: Token width D.
        heads: Number of heads.
        head_width: Width of one head; None: width / heads. In the published ViViT-2 it equals `width`.
        bias: "all" adds a bias to q, k and v. "query_value" omits that of k (VideoMAE; softmax is invariant to it).
            "none" has no bias.
        dropout: Dropout of the attention weights.
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
                    f"The width must be a multiple of the number of heads, but {heads} heads do not divide a width of "
                    f"{width}. Change the width or the number of heads."
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
        """Attend to all tokens of the sequence.

        Args:
            x: Tokens of shape (B, L, D).
            mask: Boolean mask, broadcastable to (B, heads, L, L); True where a query can attend to a key.
            keep: Number of leading tokens to compute; None: all. A last block needs only its class token.

        Returns:
            Tokens of shape (B, L, D), or (B, keep, D).
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
        """Attend to the tokens at the same spatial position in all T steps.

        q, k and v are projected separately, so that positions and heads share one axis and no copy is needed to move
        time to the end.

        Args:
            x: Tokens of shape (B, T, P, D).
            mask: Boolean mask, broadcastable to (B, P * heads, T, T).
            then: Linear layer to apply after the output projection. If there are more tokens than the width, the
                weights of both layers are multiplied first.

        Returns:
            Tokens of shape (B, T, P, D).
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
        # An exported graph must work for any batch size, so it cannot branch on it.
        if torch.compiler.is_exporting() or batch * steps * places <= width:
            return then(self.proj(out))
        return F.linear(out, then.weight @ self.proj.weight, F.linear(self.proj.bias, then.weight, then.bias))


class Mlp(nn.Module):
    """Two linear layers with an activation between them: (..., D) → (..., D)."""

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
    """Stochastic depth: in training, zero a branch for random samples (axis 0) and scale the others by 1 / (1 - p).

    References:
        Huang et al., "Deep Networks with Stochastic Depth", ECCV 2016.

    Args:
        p: Probability of dropping a sample.
    """

    def __init__(self, p: float = 0.0) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Drop random samples in training; identity otherwise."""
        if not self.training or self.p == 0.0:
            return x
        keep = torch.empty((x.shape[0], *(1,) * (x.ndim - 1)), dtype=x.dtype, device=x.device).bernoulli_(1 - self.p)
        return x * keep.div_(1 - self.p)

    def extra_repr(self) -> str:
        """Return the text that `repr` shows in parentheses."""
        return f"p={self.p}"


class Block(nn.Module):
    """Pre-norm transformer block: (B, L, D) → (B, L, D)."""

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
        """Apply attention, then the MLP; `mask` and `keep` as in `Attention.forward`."""
        out = self.drop_path(self.attn(self.norm1(x), mask=mask, keep=keep))
        x = (x if keep is None else x[:, :keep]) + out
        return x + self.drop_path(self.mlp(self.norm2(x)))


def drop_path_rates(rate: float, depth: int) -> list[float]:
    """Return stochastic depth rates that grow linearly from 0 in the first block to `rate` in the last."""
    return [rate * i / max(depth - 1, 1) for i in range(depth)]


def init_transformer(module: nn.Module, *, start: Start = "normal") -> None:
    """Initialize a transformer: linear and convolution weights as `start` defines, biases 0, norms the identity.

    Args:
        module: Module to initialize in place.
        start: "normal": standard deviation 0.02, as in the published models. It fits widths near 1 / 0.02²; in a narrow
            model attention is then almost uniform and the branches add almost nothing. "xavier": scaled to the width
            (Glorot and Bengio, AISTATS 2010, eq. 16).

    Raises:
        UserError: If `start` is unknown.
    """
    if start not in get_args(Start):
        raise UserError(f"start must be one of {', '.join(get_args(Start))}, got {start!r}.")
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Conv2d | nn.Conv3d):
            if start == "xavier":
                # Patch projections have stride = kernel, so each input of a patch is used once per output.
                nn.init.xavier_uniform_(part.weight.view(len(part.weight), -1))
            else:
                nn.init.trunc_normal_(part.weight, std=0.02)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.LayerNorm):
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)
