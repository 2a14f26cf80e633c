"""Files of every format are damaged at random and read."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

from mutations import Trial
from reader_samples import READERS

from torture.common import Part, Trials

PER_READER = 2000


def read_mutated(trials: Trials, folder: Path) -> None:
    """Read mutations of the sample of each reader in turn. Only errors of the program may be raised, and soon."""
    warnings.simplefilter("ignore")
    samples = []
    for number, (name, reader) in enumerate(READERS.items()):
        place = folder / str(number)
        place.mkdir()
        samples.append((name, Trial(reader, place, seed=f"{trials.random.random()} {name}")))
    trials.facts["readers"] = len(samples)
    while trials.go_on:
        for name, trial in samples:
            fault = trial.fault()
            trials.done += 1
            trials.check(not fault, f"{name}: {fault}")
    shutil.rmtree(folder, ignore_errors=True)


PART = Part(
    "files of every format are damaged and read: clear errors only, each within 20 s",
    "mutated files",
    PER_READER * len(READERS),
    read_mutated,
)
