"""Weights in published layouts, and models with weights that differ from the initial ones."""

from __future__ import annotations

from pathlib import Path

import torch

from actionprep.training.models.i3d import I3D


def shuffled(model: torch.nn.Module) -> torch.nn.Module:
    """Return the model with random weights."""
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand_like(tensor))
    return model


def saved(tmp_path: Path, content: object, name: str = "weights.pyth") -> Path:
    path = tmp_path / name
    torch.save(content, path)
    return path


def official_timesformer(**sizes: object) -> dict[str, torch.Tensor]:
    """Return weights in the published layout, with the keys of the published files."""
    width, depth, patches, frames, classes = 32, 2, 4, sizes.get("frames", 4), sizes.get("classes", 3)
    shapes = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, 1 + sizes.get("patches", patches), width),
        "time_embed": (1, frames, width),
        "patch_embed.proj.weight": (width, 3, 16, 16),
        "patch_embed.proj.bias": (width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
        "head.weight": (classes, width),
        "head.bias": (classes,),
    }
    for i in range(depth):
        for part, shape in {
            "norm1": (width,),
            "temporal_norm1": (width,),
            "norm2": (width,),
            "attn.qkv": (3 * width, width),
            "attn.proj": (width, width),
            "temporal_attn.qkv": (3 * width, width),
            "temporal_attn.proj": (width, width),
            "temporal_fc": (width, width),
            "mlp.fc1": (4 * width, width),
            "mlp.fc2": (width, 4 * width),
        }.items():
            shapes[f"blocks.{i}.{part}.weight"] = shape
            shapes[f"blocks.{i}.{part}.bias"] = shape[:1]
    return {f"model.{key}": torch.randn(shape) for key, shape in shapes.items()}


def image_vit(classes: int = 1000) -> dict[str, torch.Tensor]:
    state = {k.removeprefix("model."): v for k, v in official_timesformer(classes=classes).items()}
    return {k: v for k, v in state.items() if "temporal" not in k and k != "time_embed"}


def charades_state(model: I3D) -> dict[str, torch.Tensor]:
    """Return the keys of piergiaj/pytorch-i3d, listed by hand."""
    state = {}
    for name, tensor in model.state_dict().items():
        if name.startswith("stages."):
            state[name.removeprefix("stages.")] = tensor
        else:
            state[name.replace("head", "logits.conv3d")] = (
                tensor[:, :, None, None, None] if tensor.ndim == 2 else tensor
            )
    return state
