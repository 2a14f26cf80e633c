"""Every model family in one file each; `registry` lists them without importing torch."""
