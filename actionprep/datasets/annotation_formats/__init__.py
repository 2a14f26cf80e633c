"""Formats of annotation files, one module each; a module registers its format when it is imported."""
