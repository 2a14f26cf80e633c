"""Folders of runs: one owner at a time."""

import json
import multiprocessing
import random
from pathlib import Path

import pytest
from training_fakes import make_store, tiny_recipe

from actionprep.datasets.store.reader import DamagedItemError
from actionprep.errors import SetupError, UserError
from actionprep.training.fit import fit
from actionprep.training.run import Run, claimed_folder, input_digest, mixtures, pipeline_of


def claim(runs: Path, begin, claimed, names) -> None:
    begin.wait()
    with claimed_folder(runs, "tiny-20260102-030405") as folder:
        (folder / "recipe.toml").write_text("mine")
        names.put(folder.name)
    claimed.wait()


def test_processes_that_claim_one_name_at_once_get_a_folder_each(tmp_path):
    # Processes, as two commands are. They are forked, so that imports are not repeated.
    context = multiprocessing.get_context("fork")
    begin, claimed, names = context.Barrier(6), context.Barrier(6), context.Queue()
    workers = [context.Process(target=claim, args=(tmp_path / "runs", begin, claimed, names)) for _ in range(6)]
    for worker in workers:
        worker.start()
    found = sorted(names.get(timeout=60) for _ in workers)
    for worker in workers:
        worker.join(60)
    first = "tiny-20260102-030405"
    assert found == [first, *(f"{first}-{number}" for number in range(2, 7))]
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == found


def test_a_folder_that_stays_empty_is_gone_again(tmp_path):
    with pytest.raises(ValueError, match="no snippets"), claimed_folder(tmp_path / "runs", "tiny"):
        raise ValueError("no snippets")
    assert list((tmp_path / "runs").iterdir()) == []


def test_run_folder_that_cannot_be_created_raises_an_error(tmp_path):
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(SetupError, match=r"Cannot write .*runs"), claimed_folder(tmp_path / "runs", "tiny"):
        pass


def test_flipped_bit_changes_no_facts(tmp_path):
    run = Run(tmp_path)
    run.change(store="study/store", labels=["clap", "wave"], seed=3, split={"seed": 1}, train_seconds=1.25)
    run.change(state={"phase": "refit", "complete": True})
    path, facts = tmp_path / "run.json", run.facts
    assert (facts["seed"], facts["state"]["phase"]) == (3, "refit")
    clean, generator, num_found = path.read_bytes(), random.Random(0), 0
    for at in range(len(clean)):
        damaged = bytearray(clean)
        damaged[at] ^= 1 << generator.randrange(8)
        path.write_bytes(damaged)
        try:
            found = run.facts
        except UserError:
            num_found += 1
        else:  # spaces, or the name of the checksum
            assert {name: found[name] for name in facts} == facts
    assert num_found > len(clean) // 2
    path.write_bytes(clean.replace(b"study/store", b"study/stoqe"))
    with pytest.raises(UserError, match=r"run.json is damaged: its content does not match its checksum\. Restore it"):
        assert not run.facts


def test_facts_without_checksum_are_read(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"labels": ["clap", "wave"]}))
    assert Run(tmp_path).labels == ("clap", "wave")


def test_training_stops_at_item_with_changed_setting(tmp_path):
    store = make_store(tmp_path / "store", subjects=2)
    path = store.path / store.items("tracks")[0].path / "zarr.json"
    text = path.read_text()
    path.write_text(text.replace('"stage": "tracks"', '"stage": "tracjs"'))
    assert path.read_text() != text
    reads = (
        lambda: pipeline_of(store, "tracks"),
        lambda: input_digest(store, "tracks", "default"),
        lambda: mixtures(store, "tracks", ["0"]),
        lambda: fit(store, tiny_recipe(epochs=1), tmp_path / "run", tensorboard=False),
    )
    for read in reads:
        with pytest.raises(
            DamagedItemError, match=r"Damaged item tracks/.* Run 'actionprep verify --repair' to rebuild it\."
        ):
            read()


def test_tested_reads_the_names_of_earlier_versions(tmp_path):
    earlier = {"figures": {"a": 0.5}, "figures_at_thresholds": {"a": 0.75}, "frames": {"figures": {"a": 0.25}}}
    (tmp_path / "test.json").write_text(json.dumps(earlier))
    assert Run(tmp_path).tested == {
        "metrics": {"a": 0.5}, "metrics_at_thresholds": {"a": 0.75}, "frames": {"metrics": {"a": 0.25}}
    }  # fmt: skip
