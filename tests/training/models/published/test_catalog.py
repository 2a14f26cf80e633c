import re

import pytest

from actionprep.training.models.published.catalog import published_checkpoints
from actionprep.training.models.published.families import FAMILIES
from actionprep.training.models.registry import model_card
from actionprep.training.recipes import find_recipe


@pytest.mark.parametrize("entry", published_checkpoints(), ids=lambda entry: entry.name)
def test_published_checkpoint_fits_its_recipe(entry):
    model = find_recipe(entry.recipe).model
    assert FAMILIES[entry.family].model.__name__ == model_card(model).build.partition(":")[2]
    assert entry.url.startswith(("https://", "http://download.openmmlab.com/"))
    assert entry.source.startswith("https://")
    assert entry.license
    assert re.fullmatch(r"([0-9a-f]{64})?", entry.sha256)


def test_published_checkpoints_are_listed_once():
    urls = [entry.url for entry in published_checkpoints()]
    assert len(set(urls)) == len(urls)
