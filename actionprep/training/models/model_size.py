"""Count the parameters and floating-point operations of a model."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from actionprep.training.models.registry import build_model, example_input, model_card

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class ModelSize:
    """Size of a model at its published input shape.

    Attributes:
        parameters: Number of parameters.
        flops: Floating-point operations of one forward pass of one sample.
    """

    parameters: int
    flops: int


@cache
def model_size(name: str) -> ModelSize:
    """Compute the size of a registered model on the "meta" device, without allocating its weights.

    Args:
        name: Name of the model.

    Returns:
        Its size at the published input shape.
    """
    import torch

    card = model_card(name)
    with torch.device("meta"):
        model = build_model(name, num_classes=card.num_classes)
    if card.product == "fusion":
        parts = inspect.signature(type(model)).parameters["parts"].default
        return ModelSize(count_parameters(model), sum(model_size(part["model"]).flops for part in parts))
    inputs = [example_input(name)]
    for parameter in list(inspect.signature(model.forward).parameters.values())[1:]:
        # A second required input has one value per point of the first: a score or a validity mask.
        if parameter.default is inspect.Parameter.empty and parameter.kind is not inspect.Parameter.VAR_KEYWORD:
            inputs.append(torch.ones(inputs[0].shape[:-1], device="meta"))
    return ModelSize(count_parameters(model), count_flops(model, *inputs))


def count_parameters(model: nn.Module) -> int:
    """Return the number of parameters, including frozen ones, as papers count them."""
    return sum(p.numel() for p in model.parameters())


def count_flops(model: nn.Module, *inputs: Tensor, **named: Tensor) -> int:
    """Count the floating-point operations of one forward pass; a multiply-add counts as two.

    Matrix products, convolutions, attention (torch.utils.flop_counter) and recurrent layers are counted, element-wise
    operations are not. Papers on video models mostly report multiply-adds as FLOPs: halve to compare. Works on the
    "meta" device.

    Args:
        model: Model to measure; its training mode is restored.
        *inputs: Positional inputs.
        **named: Keyword inputs.

    Returns:
        Number of operations.
    """
    import torch
    from torch import nn
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    recurrent = 0

    def count_lstm(module: nn.Module, args: tuple[Any, ...]) -> None:
        nonlocal recurrent
        if isinstance(module, nn.LSTM) and not isinstance(args[0], nn.utils.rnn.PackedSequence):
            steps = args[0].shape[:-1].numel()
            recurrent += sum(2 * steps * w.numel() for w in module.parameters() if w.ndim == 2)

    hooks = [m.register_forward_pre_hook(count_lstm) for m in model.modules() if isinstance(m, nn.LSTM)]
    # FlopCounterMode counts LSTMs on some devices only, so subtract its count of them and use ours.
    counter = FlopCounterMode(display=False)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
            model(*inputs, **named)
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    lstms = [name for name, m in model.named_modules() if isinstance(m, nn.LSTM)]
    root = type(model).__name__
    counted = sum(sum(counter.flop_counts.get(f"{root}.{name}".rstrip("."), {}).values()) for name in lstms)
    return counter.get_total_flops() - counted + recurrent
