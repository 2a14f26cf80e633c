"""Evaluation of classifiers: metrics, confidence intervals, calibration, result files and the report page."""
