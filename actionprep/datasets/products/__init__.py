"""The schema of each product: its arrays, dtypes, axes, units, beside its writer and reader."""
