"""Formats of calibration files, one file per family."""
