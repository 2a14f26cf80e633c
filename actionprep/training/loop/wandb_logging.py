"""Check that metrics can be logged to Weights & Biases."""

from __future__ import annotations

from actionprep.errors import SetupError


def check_wandb() -> None:
    """Check that the package of Weights & Biases is installed, before a run begins.

    Raises:
        SetupError: If it is missing.
    """
    try:
        import wandb as _  # noqa: F401
    except ImportError:
        raise SetupError(
            "Logging to Weights & Biases requires its package: pip install 'actionprep[wandb]', then 'wandb login'. "
            "Without it, metrics.csv and TensorBoard contain the same curves."
        ) from None
