"""Device names: valid, unavailable and unknown ones."""

import pytest
import torch

from actionprep.errors import SetupError, UserError
from actionprep.training.loop.devices import lightning_devices, torch_device


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)


def test_auto_is_a_gpu_where_there_is_one(two_gpus):
    assert torch_device("auto") == torch.device("cuda")
    assert torch_device("cuda:1") == torch.device("cuda", 1)
    assert lightning_devices("auto", 2) == ("cuda", 2)
    assert lightning_devices("cuda:1", 1) == ("cuda", [1])


def test_auto_is_the_processor_without(no_gpu):
    assert torch_device("auto") == torch_device("cpu") == torch.device("cpu")
    assert lightning_devices("auto", 3) == ("cpu", 3)


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:one", "CPU", ""])
def test_another_name_is_refused_with_those_that_there_are(name):
    with pytest.raises(UserError) as caught:
        torch_device(name)
    assert str(caught.value) == (f"Unknown device '{name}'. Use auto, cpu, mps, cuda or cuda:N (the N-th GPU, from 0).")


def test_missing_gpu_raises_an_error(no_gpu):
    with pytest.raises(SetupError) as caught:
        torch_device("cuda")
    assert str(caught.value) == (
        "Device cuda is not available: PyTorch found no CUDA GPU. Use --device cpu, or install a CUDA build of PyTorch."
    )


def test_gpu_number_out_of_range_raises_an_error(two_gpus):
    with pytest.raises(SetupError) as caught:
        torch_device("cuda:2")
    assert str(caught.value) == (
        "Device cuda:2 is not available: PyTorch found 2 CUDA GPUs, numbered from 0. Use --device cuda, or another index."
    )


def test_one_gpu_is_not_shared_by_several_processes(two_gpus):
    with pytest.raises(UserError, match=r"^--device cuda:1 names a single GPU, but --devices requests 2 processes"):
        lightning_devices("cuda:1", 2)
