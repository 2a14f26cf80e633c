"""Printed metrics of tests and folds."""

import pytest

from actionprep.cli.train.print_metrics import adjustments, print_folds, print_test


def test_print_test_reports_the_calibration_by_val():
    tested = {
        "calibration": {"from": "best.ckpt on 24 val snippets", "temperature": 1.5, "error": 0.2, "scaled_error": 0.1},
        "metrics": {"macro_f1": 0.25},
        "metrics_at_thresholds": {"macro_f1": 0.5},
    }
    assert adjustments(tested) == [
        "Temperature 1.50, tuned on best.ckpt on 24 val snippets: the calibration error decreases from 0.200 to 0.100.",
        "With one threshold per label, tuned on val (listed in test.json), macro F1 is 0.500 instead of 0.250.",
    ]
    assert adjustments({**tested, "part": "val"}) == [
        "Temperature 1.50, tuned on best.ckpt on 24 val snippets (the same snippets): the calibration error decreases "
        "from 0.200 to 0.100.",
        "With one threshold per label, tuned on val (the same snippets) (listed in test.json), macro F1 is 0.500 instead of "
        "0.250.",
    ]
    assert adjustments({"calibration": {"error": 0.2, "temperature": 1.0}}) == []


@pytest.mark.parametrize(
    ("temperature", "error", "scaled", "message"),
    [
        (1.0, 0.0841, 0.0841, "Temperature 1.00, tuned on val: the calibration error stays 0.084."),
        (1.3, 0.0841, 0.0842, "Temperature 1.30, tuned on val: the calibration error stays 0.084."),
        (1.3, 0.085, 0.135, "Temperature 1.30, tuned on val: the calibration error increases from 0.085 to 0.135."),
    ],
)
def test_print_test_reports_a_temperature_without_benefit(temperature, error, scaled, message):
    result = {"from": "val", "temperature": temperature, "error": error, "scaled_error": scaled}
    assert adjustments({"calibration": result}) == [message]


def test_print_folds_prints_words_and_numbers(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    folds = [{"fold": 1, "subject": "anna", "snippets": 3, "accuracy": 1.0, "macro_f1": 0.5}]
    over = {"accuracy": {"mean": 0.75, "std": 0.25}, "macro_f1": {"mean": 0.5, "std": 0.125}}
    accuracy = {"value": 0.8, "low": 0.6, "high": 0.95}
    print_folds(folds, {"num_samples": 10, "accuracy": accuracy, "macro_f1": 0.55, "over_folds": over})
    printed = capsys.readouterr().out
    assert "Pooled, 10 snippets" in printed
    assert ["accuracy", "0.800", "0.600", "to", "0.950", "0.750", "0.250"] in [
        entry.split() for entry in printed.splitlines()
    ]
    assert "{" not in printed


@pytest.mark.parametrize("nothing", [None, float("nan")])
def test_print_test_shows_nan_as_a_dash(capsys, monkeypatch, nothing):
    monkeypatch.setenv("COLUMNS", "100")
    row = {"label": "up", "support": 3, "precision": nothing}
    interval = {"value": 0.5, "low": nothing, "high": nothing}
    print_test(
        {
            "num_samples": 3, "num_recordings": 3, "metrics": {"macro_f1": 0.5}, "intervals": {"macro_f1": interval},
            "classes": [row],
        }
    )  # fmt: skip
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["up", "3", "–"] in lines
    assert ["macro", "F1", "0.500", "–"] in lines
