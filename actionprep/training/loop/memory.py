"""Whether an error says that memory ran out."""

from __future__ import annotations

_WORDS = ("not enough memory", "out of memory", "can't allocate memory")


def ran_out(error: BaseException) -> bool:
    """Whether memory ran out, of the processor or of a GPU; PyTorch tells it in several ways."""
    import torch

    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _WORDS)


def reason(error: BaseException) -> str:
    """The first line of what the error says."""
    return (str(error).splitlines() or [type(error).__name__])[0][:160]
