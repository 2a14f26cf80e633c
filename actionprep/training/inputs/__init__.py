"""Model inputs: one module per product, from snippets of the store to batches."""
