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
from actionprep.training.fusion import read_fusion
from actionprep.training.run import Run, claimed_folder, early_best_warning, input_digest, mixed_inputs, pipeline_of


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
    result = sorted(names.get(timeout=60) for _ in workers)
    for worker in workers:
        worker.join(60)
    first = "tiny-20260102-030405"
    assert result == [first, *(f"{first}-{number}" for number in range(2, 7))]
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == result


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
            result = run.facts
        except UserError:
            num_found += 1
        else:  # spaces, or the name of the checksum
            assert {name: result[name] for name in facts} == facts
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
        lambda: mixed_inputs(store, "tracks", ["0"]),
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


def recorded(folder: Path, store: str) -> Run:
    """A run that records this store."""
    run = Run(folder)
    run.change(store=store, state={"phase": "validate", "complete": True})
    return run


def test_run_store_in_the_study_of_the_run_is_used(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study").mkdir()
    (tmp_path / "study/actionprep.toml").touch()
    inside = str(tmp_path / "study/store")
    assert recorded(tmp_path / "study/runs/one", inside).store == inside
    # The settings of the current study are the user's own.
    (tmp_path / "mine").mkdir()
    elsewhere = str(tmp_path / "disk/store")
    (tmp_path / "mine/actionprep.toml").write_text(f'[study]\nstore = "{elsewhere}"\n')
    foreign = recorded(tmp_path / "study/runs/two", elsewhere)
    monkeypatch.chdir(tmp_path / "mine")
    assert foreign.store == elsewhere


@pytest.mark.parametrize("place", ["{root}/other/store", "{root}/study/../other", "s3://bucket/store", "zip::x.zip"])
def test_run_store_elsewhere_is_refused(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study").mkdir()
    (tmp_path / "study/actionprep.toml").write_text('[study]\nstore = "../other/store"\n')
    store = place.format(root=tmp_path)
    with pytest.raises(UserError, match=r"so it is not read\. If it is yours, give it with --store") as caught:
        _ = recorded(tmp_path / "study/runs/one", store).store
    assert f"names the store {store}, which is neither" in str(caught.value)


def test_run_store_through_a_link_out_of_the_study_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study").mkdir()
    (tmp_path / "study/actionprep.toml").touch()
    (tmp_path / "private").mkdir()
    (tmp_path / "study/store").symlink_to(tmp_path / "private")
    with pytest.raises(UserError, match="give it with --store"):
        _ = recorded(tmp_path / "study/runs/one", str(tmp_path / "study/store")).store


def test_fusion_of_runs_outside_the_study_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study/runs/fused").mkdir(parents=True)
    (tmp_path / "study/actionprep.toml").touch()
    document = {"runs": ["../one", str(tmp_path / "other/run")], "weights": [1, 1], "why": "equal"}
    (tmp_path / "study/runs/fused/fusion.json").write_text(json.dumps(document))
    with pytest.raises(
        UserError, match=r"names runs outside the folder of its study, so they are not read: .*other/run"
    ):
        read_fusion(tmp_path / "study/runs/fused")


def test_early_best_warning_names_the_epoch(tmp_path):
    run = Run(tmp_path)
    (tmp_path / "recipe.toml").write_text(tiny_recipe(monitor="val_loss").to_toml())

    def validated(losses):
        run.write_metrics(
            [
                {"phase": "validate", "epoch": epoch, "val_loss": loss, "val_accuracy": 0.5, "val_macro_f1": 0.5}
                for epoch, loss in enumerate(losses)
            ]
        )
        return early_best_warning(run)

    rising = [1 + epoch / 60 for epoch in range(60)]
    assert validated(rising).startswith("Warning: the best epoch is 1 of 60. Validation did not improve after it")
    assert validated(rising[::-1]) is None
    assert validated(rising[:3]) is None  # too few to mean anything


@pytest.mark.parametrize("kind", ["zarr", "hdf5", "npz"])
def test_recorded_store_that_moved_with_the_run(tmp_path: Path, kind: str) -> None:
    store = tmp_path / "new/study/store"
    if kind == "hdf5":
        store = store.with_suffix(".h5")
        store.parent.mkdir(parents=True)
        store.write_bytes(b"")
    else:
        (store / "train/wave").mkdir(parents=True)
        (store / ("zarr.json" if kind == "zarr" else "train/wave/a.npz")).write_bytes(b"")
    run = Run(tmp_path / "new/study/runs/one")
    run.folder.mkdir(parents=True)
    run.change(store=f"/old/study/{store.name}", store_from_here=f"../../{store.name}")
    assert Path(run.recorded_store).resolve() == store
