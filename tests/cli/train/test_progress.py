"""The line that shows how a training goes on."""

from actionprep.cli.train.progress import progress_figures


def test_progress_shows_two_figures_as_far_as_there_is_room():
    figures = {"train_loss": 0.86, "learning_rate": 0.0002, "val_loss": 0.5, "val_accuracy": 0.75, "val_map": 0.1}
    assert progress_figures(figures, 30) == "loss 0.860  val accuracy 0.750"
    assert progress_figures(figures, 29) == "loss 0.860"
    assert progress_figures(figures, 5) == ""
    assert progress_figures({"train_loss": 1.0}, 30) == "loss 1.000"
