"""Models, one family per file; `registry` lists them without importing torch."""
