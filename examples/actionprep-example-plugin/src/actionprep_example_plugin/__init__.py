"""A tracker, a model with its recipe and an annotation format for actionprep, found through entry points."""
