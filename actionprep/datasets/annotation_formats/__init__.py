"""Formats of annotation files, one module each; the table is in `actionprep.datasets.annotations`."""
