"""Evaluation: metrics, calibration, result files, the report page."""
