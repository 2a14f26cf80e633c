"""Placeholder until the training branch is merged."""
from actionprep.settings import Settings
class TrainSettings(Settings):
    """Train."""
