"""Published checkpoints: detection of their layout and mapping of their keys."""
