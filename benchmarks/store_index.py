"""Time of commands that need the metadata of all items, in stores of 200 to 20,000 items.

    python -m benchmarks.store_index [--sizes 200 2000 20000]

Each study has masks and point tracks of `items / 2` recordings with one view. Compared are: reading the index file, a
snapshot of the store (the index and a check of every item), the same without an index (one walk), `status` (a plan
against the settings included) and what `fit` reads before it opens the first array. Time is that of the processor, in the
system and in the program; interpreter start is not counted.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from actionprep.api import Study, settings_models
from actionprep.api.status import status
from actionprep.datasets.catalog import Catalog
from actionprep.datasets.products.snippets import SnippetTable
from actionprep.datasets.recordings import Recording, View
from actionprep.datasets.split_choice import SplitChoice
from actionprep.datasets.store.index import FILE, Index
from actionprep.datasets.store.metadata import group_text, group_text_with_checksum
from actionprep.datasets.store.zarr_store import Store
from actionprep.datasets.study import StudySettings, init_study
from actionprep.garbage_collection import collect_rarely
from actionprep.training.loop.training_plan import TrainingPlan
from actionprep.training.recipes import find_recipe
from benchmarks.common import Results, interleaved

LABELS = ("left", "right")
SECONDS = 8.0
ROUNDS = 7


def make_study(folder: Path, num_items: int) -> Study:
    """Make a study with a store of small items that its settings call up to date."""
    times = np.arange(round(SECONDS * 25)) / 25
    names = [f"subject_{number // 20:04}/take_{number % 20:02}" for number in range(num_items // 2)]
    views = [
        View(name, "0", f"videos/{name}.mp4", width=64, height=48, num_frames=len(times), fps=25.0, digest=name,
             frame_times=times)
        for name in names
    ]  # fmt: skip
    recordings = [
        Recording(name, subject=name.partition("/")[0], label=LABELS[at % 2]) for at, name in enumerate(names)
    ]
    settings = StudySettings.read({"layout": "views", "stages": ("tracks",)}, where="the benchmark")
    study = Study(init_study(folder, settings, chosen={"tracks": {"tracker": "lk"}}, models=settings_models()))
    study.__dict__["catalog"] = Catalog(tuple(recordings), tuple(views), {})
    _write_array(study.store, folder / "array")
    for item in study.plan().items:
        attributes = {
            "arrays": {},
            "digest": item.fingerprint,
            "fingerprint": item.fingerprint,
            "item": {"product": item.key.product, "recording": item.key.recording, "view": item.key.view},
            "nbytes": 24,
            "provenance": item.provenance,
            "stage": {"width": 64, "height": 48},
        }
        place = study.store.require_local() / item.key.path
        shutil.copytree(folder / "array", place)
        (place / "zarr.json").write_text(group_text_with_checksum(attributes))
        for parent in list(place.parents)[:3]:
            if not (parent / "zarr.json").exists():
                (parent / "zarr.json").write_text(group_text({}))
    _write_snippets(study.store, recordings)
    return study


def _write_array(store: Store, folder: Path) -> None:
    with store.write("sample", "array", fingerprint="", provenance={}) as item:
        item.write("time", np.zeros(3), axes=("t",))
    place = store.require_local() / "sample"
    shutil.copytree(place / "array", folder)
    shutil.rmtree(place)


def _write_snippets(store: Store, recordings: list[Recording]) -> None:
    size = len(recordings)
    code = np.array([LABELS.index(str(recording.label)) for recording in recordings], np.int32)
    target = np.eye(len(LABELS), dtype=np.uint8)[code]
    overlap = target.astype(np.float32)
    table = SnippetTable(
        recording=np.arange(size, dtype=np.int32), onset=np.zeros(size), offset=np.full(size, SECONDS), label=code,
        target=target, coverage=overlap, iou=overlap, segment_share=overlap, labels=LABELS,
        recordings=tuple(recording.id for recording in recordings),
        subjects=tuple(str(recording.subject) for recording in recordings), sessions=("",) * size, splits=("",) * size,
        sources=tuple((recording.id,) for recording in recordings),
        settings={"length_s": None, "background": None, "multi_label": False}, left_out={},
    )  # fmt: skip
    provenance = {"stage": "snippets", "version": 1, "settings": {}, "inputs": {}}
    with store.write("snippets", "default", fingerprint="snippets", provenance=provenance) as item:
        for column in ("recording", "onset", "offset", "label"):
            item.write(column, getattr(table, column), axes=("snippet",))
        for column in ("target", "coverage", "iou", "segment_share"):
            item.write(column, getattr(table, column), axes=("snippet", "label"))
        item.attributes.update(table.attributes())


def begin_fit(path: Path) -> dict[str, Any]:
    """Read what `fit` reads before it opens the first array of an item."""
    store = Store(path).snapshot()
    split = SplitChoice(by="subject")
    plan = TrainingPlan.make(store, find_recipe("view-transformer"), snippets="default", split=split, views=None)
    return {**plan.facts(), "sentences": plan.sentences}


def measure(folder: Path, num_items: int) -> dict[str, Callable[[], object]]:
    """Sides to time for a store of one size."""
    study = make_study(folder, num_items)
    path = Path(study.folder.store)
    time.sleep(0.2)  # so that the index trusts the time stamps
    Store(path).snapshot()

    def without_index() -> None:
        (path / FILE).unlink()
        Store(path).snapshot()

    def show_status() -> None:
        fresh = Study(study.folder)
        fresh.__dict__["catalog"] = study.catalog
        report = status(fresh)
        assert {product["against_settings"] for product in report["products"]} <= {
            "up to date",
            "not in [study] stages",
        }

    return {
        "read the index file": lambda: _parsed(path),
        "snapshot": lambda: Store(path).snapshot().items(),
        "snapshot without index": without_index,
        "status": show_status,
        "begin fit": lambda: begin_fit(path),
    }


def _parsed(path: Path) -> None:
    index = Index.read(path)
    assert index is not None
    for record in index.records.values():
        record.parsed()


def main() -> int:
    """Run all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[200, 2000, 20000])
    args = parser.parse_args()
    collect_rarely()  # as the programs do
    results = Results("store_index", settings={"seconds_per_recording": SECONDS})
    with tempfile.TemporaryDirectory() as name:
        for size in args.sizes:
            sides = interleaved(
                measure(Path(name) / str(size), size), rounds=ROUNDS, work=size, unit="items", clock=time.process_time
            )
            results.add(f"{size} items", sides)
            reading = sides["read the index file"].median
            for what in ("status", "begin fit"):
                results.mark(f"{size} items: {what} / read the index file", sides[what].median / reading, at_most=3.0)
    results.save()
    return results.exit_code()


if __name__ == "__main__":
    raise SystemExit(main())
