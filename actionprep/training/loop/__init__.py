"""Training loop: task, callbacks, losses, optimizers, devices and resuming."""
