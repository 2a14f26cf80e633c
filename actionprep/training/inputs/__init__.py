"""What models read of a store: one file a product, each with its settings and its reader."""
