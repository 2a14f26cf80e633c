"""Recognize out-of-memory errors."""

from __future__ import annotations

_WORDS = ("not enough memory", "out of memory", "can't allocate memory")


def ran_out(error: BaseException) -> bool:
    """Return whether an error means that memory of the CPU or a GPU ran out. PyTorch reports it in several ways."""
    import torch

    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _WORDS)


def reason(error: BaseException) -> str:
    """Return the first line of an error message."""
    return (str(error).splitlines() or [type(error).__name__])[0][:160]
