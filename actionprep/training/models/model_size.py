"""How big a model is: its weights, and its floating-point operations."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from actionprep.training.models.registry import build_model, example_input, model_card

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class ModelSize:
    """Weights, and floating-point operations of one forward pass of one sample, at the published sizes."""

    parameters: int
    flops: int


def model_size(name: str) -> ModelSize:
    """Count a model of the table at its published sizes, in a fraction of a second: nothing is computed or stored."""
    import torch

    card = model_card(name)
    with torch.device("meta"):
        model = build_model(name, num_classes=card.num_classes)
    if card.product == "fusion":
        parts = inspect.signature(type(model)).parameters["parts"].default
        return ModelSize(count_parameters(model), sum(model_size(part["model"]).flops for part in parts))
    inputs = [example_input(name)]
    for parameter in list(inspect.signature(model.forward).parameters.values())[1:]:
        # A second input that has to be there goes with every point of the first: a score, a mark of validity.
        if parameter.default is inspect.Parameter.empty and parameter.kind is not inspect.Parameter.VAR_KEYWORD:
            inputs.append(torch.ones(inputs[0].shape[:-1], device="meta"))
    return ModelSize(count_parameters(model), count_flops(model, *inputs))


def count_parameters(model: nn.Module) -> int:
    """Number of weights, frozen ones included, as papers count them."""
    return sum(p.numel() for p in model.parameters())


def count_flops(model: nn.Module, *inputs: Tensor, **named: Tensor) -> int:
    """Floating-point operations of one forward pass: a multiplication and its addition are two.

    Counts matrix products, convolutions and attention (torch.utils.flop_counter) and recurrent layers, not
    element-wise work. Papers on video models mostly state multiply-adds and call them FLOPs: halve to compare. Works
    on the "meta" device, without computing.
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
    # The counter sees an LSTM's products on some devices and not on others; its own count of them is taken out.
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
    seen = sum(sum(counter.flop_counts.get(f"{root}.{name}".rstrip("."), {}).values()) for name in lstms)
    return counter.get_total_flops() - seen + recurrent
