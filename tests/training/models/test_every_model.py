"""Requirements on every model, at tiny sizes."""

from __future__ import annotations

import shutil

import pytest
import torch
import torch.nn.functional as F
from tiny_models import CLASSES, TINY, targets, tiny
from torch import Tensor

from actionprep.training.loop.precision import faults_of_layers
from actionprep.training.models.registry import MODELS


def loss_of(logits: Tensor) -> Tensor:
    return F.cross_entropy(logits.flatten(0, -2), targets(logits).flatten())


@pytest.mark.parametrize("name", TINY)
def test_forward_returns_finite_logits(name: str):
    model, x = tiny(name)
    logits = model.eval()(x)
    assert logits.shape in ((2, CLASSES), (2, x.shape[1], CLASSES))
    assert logits.isfinite().all()


@pytest.mark.parametrize("name", TINY)
def test_backward_gives_every_trained_weight_a_gradient(name: str):
    model, x = tiny(name)
    loss_of(model(x)).backward()
    without = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", TINY)
def test_state_dict_round_trip_keeps_logits(name: str):
    model, x = tiny(name)
    other, _ = tiny(name)
    with torch.no_grad():
        for p in other.parameters():
            p.add_(1.0)
    other.load_state_dict(model.state_dict())
    assert torch.equal(model.eval()(x), other.eval()(x))


@pytest.mark.parametrize("name", TINY)
def test_model_fits_one_batch(name: str):
    model, x = tiny(name)
    # Noise alone looks alike to a model that averages it. These samples differ, and 40 steps are enough for every model.
    x[1] += 1
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    first = loss_of(model(x)).item()
    for _ in range(120):
        loss = loss_of(model(x))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss.item() < 0.2 * first:
            return
    pytest.fail(f"the loss only changed from {first:.3f} to {loss.item():.3f}")


@pytest.mark.parametrize("name", TINY)
def test_bfloat16_autocast_stays_near_float32(name: str):
    model, x = tiny(name, **({"drop_path": 0.0} if "drop_path" in TINY[name][0] else {}))
    # `fit` refuses such a model on such a processor.
    if faults := faults_of_layers(model, torch.device("cpu"), torch.bfloat16):
        pytest.skip(f"this processor does not compute {', '.join(faults)} layers in bfloat16")
    model.eval()
    with torch.no_grad():
        exact = model(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(x)
        loss = loss_of(logits.float())
    loss.backward()
    assert logits.isfinite().all()
    assert (logits.float() - exact).abs().max() < 0.1 * max(exact.abs().max().item(), 1.0)


@pytest.mark.parametrize(
    "name",
    [
        "timesformer",
        "videomae",
        "vivit-2",
        "motionbert",
        "view-transformer-maaf",
        "track-lstm",
        "poseconv3d-small",
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_compile_traces_one_graph(name: str):
    torch._dynamo.reset()
    depth = {"depth": 1} if "depth" in TINY[name][0] else {}
    model, x = tiny(name, **depth)
    model.eval()
    # The compiler does not trace into an LSTM.
    traced = torch.compile(model, backend="eager", fullgraph=name != "track-lstm")
    torch.testing.assert_close(traced(x), model(x), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_compiled_gradients_equal_eager_ones(tmp_path, monkeypatch):
    # Without the kernels of other processes, which may be incomplete.
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        pytest.skip("torch.compile needs a C++ compiler, and none is installed")
    torch._dynamo.reset()
    model, x = tiny("heatmap-transformer", depth=1)
    loss_of(model(x)).backward()
    plain = {n: p.grad.clone() for n, p in model.named_parameters()}
    model.zero_grad()
    loss_of(torch.compile(model)(x)).backward()
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.grad, plain[name], rtol=1e-3, atol=1e-5)


def test_tiny_models_cover_their_families():
    families = {MODELS[name].build.split(":")[0] for name in TINY}
    assert {name for name, card in MODELS.items() if card.build.split(":")[0] in families} == set(TINY)
