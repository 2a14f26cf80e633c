"""The training loop: task, optimizers, callbacks, resume."""
