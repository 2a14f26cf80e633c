"""`actiontrain fit`: new runs, and `--resume` without options that contradict the run."""

import json
import os
import shlex
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from training_fakes import make_store, tiny_recipe, write_snippets, write_split
from typer.testing import CliRunner

from actionprep.cli.train import app
from actionprep.datasets.snippets import SnippetTable
from actionprep.datasets.store.zarr_store import Store
from actionprep.errors import UserError

runner = CliRunner()


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A folder with a store, a recipe and a finished run."""
    folder = tmp_path_factory.mktemp("resume")
    make_store(folder / "store", subjects=4)
    (folder / "tiny.toml").write_text(tiny_recipe(epochs=1).to_toml(), encoding="utf-8")
    return folder


@pytest.fixture
def fit(project, monkeypatch):
    monkeypatch.chdir(project)

    def run(*words: str):
        return runner.invoke(app, ["fit", "store", "--threads", "1", *words])

    if not Path("runs/one").exists():
        made = run("--recipe", "tiny.toml", "--run", "one", "--by", "subject", "--test-groups", "4", "--seed", "3")
        assert made.exit_code == 0, made.output
    return run


def test_fit_resumes_a_run_without_its_options(fit):
    result = fit("--run", "one", "--resume", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["seed"] == 3


def test_fit_folds_prints_its_files_and_the_next_command(fit):
    words = ("--recipe", "tiny.toml", "--run", "folds", "--folds", "subject", "--num-folds", "3", "--val", "0")
    done = fit(*words)
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert lines[-2:] == [
        "Wrote runs/folds/folds.csv, folds.json, and report.html in fold-01 … fold-03",
        "next  actiontrain compare runs/folds   adds mean average precision, size and speed",
    ]
    assert all(Path("runs/folds", name).exists() for name in ("folds.csv", "folds.json", "fold-03/report.html"))


def test_a_fit_that_cannot_begin_names_no_run_and_leaves_none(fit, project):
    before = {path.name for path in Path("runs").iterdir()}
    done = fit("--recipe", "tiny.toml", "--snippets", "nowhere")
    assert done.exit_code == 2
    assert "nowhere" in done.output
    assert "Run " not in done.output
    assert {path.name for path in Path("runs").iterdir()} == before


def test_fit_on_one_class_reports_the_classes_and_a_remedy(fit, tmp_path):
    make_store(tmp_path / "store", subjects=4, names=("left",))
    done = runner.invoke(app, ["fit", str(tmp_path / "store"), "--recipe", "tiny.toml", "--run", "one-class"])
    assert done.exit_code == 2
    assert done.stderr == (
        "A classifier needs at least two classes, but these snippets have only the class 'left' (4 snippets in use; 0 "
        "ignored).\nAnnotate another class, or make snippets with a background class, here called 'nothing': actionprep "
        "snippets --background nothing. Recordings with one label for their full length have no background.\n"
    )
    assert not Path("runs/one-class").exists()


def test_two_fits_of_one_second_have_a_run_each(fit, monkeypatch):
    monkeypatch.setattr("time.strftime", lambda *_: "20260102-030405")
    runs = [fit("--recipe", "tiny.toml", "--json") for _ in range(2)]
    assert [Path(json.loads(entry.stdout)["run"]).name for entry in runs] == [
        "tiny-20260102-030405", "tiny-20260102-030405-2",
    ]  # fmt: skip
    done = fit("--recipe", "tiny.toml")
    lines = done.output.splitlines()
    assert next(line for line in lines if line.startswith("Run ")) == "Run runs/tiny-20260102-030405-3"


def test_second_test_prints_the_date_and_metrics_of_the_first(fit):
    first = runner.invoke(app, ["test", "runs/one"])
    assert first.exit_code == 0, first.output
    assert "already tested" not in first.output
    when = json.loads(Path("runs/one/test.json").read_text())["when"]
    again = runner.invoke(app, ["test", "runs/one"])
    assert again.exit_code == 0, again.output
    assert f"This run was already tested, {when}. Use the test part only once" in again.output
    assert again.stdout.splitlines()[:8] == first.stdout.splitlines()[:8]
    assert "already tested" not in runner.invoke(app, ["test", "runs/one", "--part", "val"]).output


def test_test_command_names_other_parts_and_their_training_role(fit):
    seen = {}
    for part in ("val", "train"):
        done = runner.invoke(app, ["test", "runs/one", "--part", part])
        assert done.exit_code == 0, done.output
        assert f"Part {part}: " in done.output
        assert "Test on" not in done.output
        assert "report.html" not in done.output
        assert f"Wrote runs/one/{part}/test.json" in done.output
        seen[part] = " ".join(done.output.split())
    assert "Evaluated weights (best.ckpt), which were not trained on val. The epoch was selected on val" in seen["val"]
    assert "The model was trained on train. These metrics do not show" in seen["train"]


def test_the_same_command_with_resume_is_accepted(fit):
    words = ["--recipe", "tiny.toml", "--run", "one", "--by", "subject", "--test-groups", "4", "--seed", "3"]
    result = fit(*words, "--resume")
    assert result.exit_code == 0, result.output
    assert "is complete" in result.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--epochs", "8"], "epochs is 1, not 8"),
        (["--seed", "4"], "seed is 3, not 4"),
        (["--set", "optimizer.weight_decay=0.5"], "optimizer.weight_decay is 0.05, not 0.5"),
        (["--recipe", "track-lstm"], "name is tiny, not track-lstm"),
        (["--test-groups", "2"], "the split differs"),
        (["--by", "recording"], "the split differs"),
        (["--snippets", "short"], "snippets are 'default', not 'short'"),
    ],
)
def test_contradicting_options_are_named(fit, words, message):
    result = fit("--run", "one", "--resume", *words)
    assert result.exit_code == 2
    assert message in result.output
    assert "Remove these options, or start another run" in result.output


def test_fit_resume_without_a_run_names_the_command_to_train(project, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    result = runner.invoke(app, ["fit", str(project / "store"), "--resume"])
    assert result.exit_code == 2
    assert "No runs in runs. Train one with 'actiontrain fit'." in result.output


@pytest.mark.parametrize(("kind", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_stopped_fit_prints_the_command_to_resume(fit, monkeypatch, kind, code):
    from actionprep.training.loop.task import ClassifierTask

    plain = ClassifierTask.training_step

    def stopped(self, batch, batch_idx):
        if self.current_epoch == 1:
            os.kill(os.getpid(), kind)
        return plain(self, batch, batch_idx)

    # A shell makes its background processes ignore SIGINT.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    name = f"stopped-{code}"
    words = ["--recipe", "tiny.toml", "--run", name, "--set", "epochs=3"]
    with monkeypatch.context() as patch:
        patch.setattr(ClassifierTask, "training_step", stopped)
        try:
            done = fit(*words)
        finally:
            signal.signal(signal.SIGINT, before)
    assert done.exit_code == code, done.output
    root, _, line = done.stderr.strip().rpartition("\n  ")
    assert root.endswith("Stopped. Finished epochs are saved. Resume with:")
    assert "Received SIGTERM" not in done.output
    assert shlex.split(line)[1:] == [
        "fit", "store", "--threads", "1", "--recipe", "tiny.toml", "--set", "epochs=3", "--run", name, "--resume",
    ]  # fmt: skip
    done = runner.invoke(app, shlex.split(line)[1:])
    assert done.exit_code == 0, done.output
    assert "Validation: accuracy" in done.output


def test_subjects_is_another_name_of_groups(fit):
    asked = ("--recipe", "tiny.toml", "--json")
    result = fit(*asked, "--by", "subject", "--train-subjects", "1", "2", "--val-subjects=3", "--test-subjects", "4")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["split"]["groups"] == {"train": ["1", "2"], "val": ["3"], "test": ["4"]}


def test_no_option_of_the_help_is_cut_at_80_columns():
    result = runner.invoke(app, ["fit", "--help"], env={"COLUMNS": "80"})
    named = {word.strip("│ ") for line in result.stdout.splitlines() for word in line.split() if "--" in word}
    for name in ("--train-groups", "--[no-]allow-single", "--find-lr"):
        assert name in named
    assert not [line for line in result.stdout.splitlines() if "-…" in line]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["export", "absent"], "runs/absent is not a run: it has no run.json. runs has the runs "),
        (
            ["predict", "nothere.mp4", "more.mp4", "--run", "one"],
            "No such video: nothere.mp4, more.mp4. For recordings of the study, give their ids: --recording",
        ),
    ],
)
def test_fit_reports_missing_inputs_before_any_work(fit, words, message):
    done = runner.invoke(app, words)
    assert done.exit_code == 2
    assert message in done.stderr


def test_fit_reports_study_settings_that_a_recipe_does_not_have(tmp_path, monkeypatch):
    (tmp_path / "actionprep.toml").write_text(
        '[train]\nchanges = { epochs = 2, "input.points" = 64 }\n', encoding="utf-8"
    )
    make_store(tmp_path / "store", subjects=4)
    monkeypatch.chdir(tmp_path)
    done = runner.invoke(app, ["fit", "--recipe", "i3d-small"])
    assert "Changes of the study that this recipe does not have: input.points" in done.stdout
    assert done.exit_code == 2
    assert "Unknown setting" not in done.stderr
    assert "actionprep build lowres" in done.stderr


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Write a study whose store has split/default and split/first, both testing on subject 4. Return its `fit`."""

    def make(train: str = "", splits: tuple[str, ...] = ("default", "first")):
        (tmp_path / "actionprep.toml").write_text(f"[train]\n{train}\n", encoding="utf-8")
        store = make_store(tmp_path / "store", subjects=4)
        for name in splits:
            write_split(store, name, tested="4")
        (tmp_path / "tiny.toml").write_text(tiny_recipe(epochs=1).to_toml(), encoding="utf-8")
        monkeypatch.chdir(tmp_path)
        return lambda *words: runner.invoke(app, ["fit", "--recipe", "tiny.toml", "--threads", "1", *words])

    return make


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--split", "first", "--train-groups", "1", "--test-groups", "2"],
            "--split first uses a stored split, but --train-groups and --test-groups would make a new split. Remove "
            "--train-groups and --test-groups or --split.",
        ),
        (["--split", "first", "--by", "subject", "--val", "0.4"], "but --by and --val would make a new split"),
        (
            ["--val", "0", "--test", "0.5", "--seed", "7"],
            "The store has split/default, which is used by default, but --val and --test would make a new split. Remove "
            "--val and --test, or choose the split unit with --by subject, session or recording.",
        ),
        (
            ["--split", "first", "--folds", "recording"],
            "--split cannot be combined with --folds, which makes its own splits: each subject, session or recording is "
            "tested once. Remove --split or --folds.",
        ),
        (["--folds", "subject", "--test-groups", "4"], "--test-groups cannot be combined with --folds"),
        (["--by", "column", "--train-groups", "1"], "by = column reads the part of each recording from a column"),
    ],
)
def test_options_beside_a_stored_split_or_folds_are_refused(study, words, message):
    done = study()(*words)
    assert done.exit_code == 2
    assert message in " ".join(done.stderr.split())
    assert not Path("runs").exists()


def test_a_seed_beside_a_stored_split_seeds_the_training(study):
    done = study()("--seed", "7", "--json")
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)
    assert (facts["seed"], facts["split"]["stored"]) == (7, "default")


def test_by_of_the_command_line_goes_before_split_default(study):
    done = study()("--by", "recording", "--val", "0", "--test", "0.5", "--json")
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)["split"]
    assert (facts["by"], facts["stored"]) == ("recording", None)


@pytest.mark.parametrize(
    ("train", "words", "message", "stored"),
    [
        (
            'by = "subject"\nval = 0.4',
            ["--split", "first"],
            "Ignored settings of [train]: by, val, because the stored split 'first' is used",
            "first",
        ),
        ("val = 0.4", [], "Ignored settings of [train]: val, because the stored split 'default' is used", "default"),
        (
            'split = "first"',
            ["--by", "subject", "--val", "0"],
            "Ignored settings of [train]: split, because --by and --val make a new split",
            None,
        ),
    ],
)
def test_fit_reports_study_settings_that_the_split_does_not_use(study, train, words, message, stored):
    done = study(train)(*words, "--run", "one")
    assert done.exit_code == 0, done.output
    assert message in " ".join(done.output.split())
    assert json.loads(Path("runs/one/run.json").read_text())["split"]["stored"] == stored


def test_a_share_beside_the_stored_split_of_the_study_is_refused(study):
    done = study('split = "first"')("--val", "0.3")
    assert done.exit_code == 2
    assert "The settings use the stored split 'first' (split under [train]), but --val" in done.stderr


def test_the_next_command_names_the_study_that_was_named(study, tmp_path):
    fit = study(splits=())
    done = fit("--study", str(tmp_path), "--run", "one")
    assert done.exit_code == 0, done.output
    assert f"next  actiontrain test --study {tmp_path}   tests it once" in done.stdout
    assert "next  actiontrain test   tests it once" in fit("--run", "two").stdout


def test_without_a_test_part_no_test_is_named_next(study):
    done = study(splits=())("--val", "0", "--test", "0")
    assert done.exit_code == 0, done.output
    assert "Report" in done.stdout
    assert "next" not in done.stdout


@pytest.mark.parametrize(
    ("splits", "words", "message"),
    [
        (
            ("subjects",),
            ["--run", "one"],
            "This run uses another split. To use the official split of the store, add --split subjects.",
        ),
        (
            ("split1", "split2"),
            ["--run", "one"],
            "To use one of the official splits of the store, add --split: split1, split2.",
        ),
        (("split1", "split2"), ["--split", "split2"], None),
        (("split1", "split2"), ["--by", "recording"], None),
        (("split1", "split2"), ["--test-groups", "4"], None),
        (("split1", "default"), [], None),
        ((), [], None),
    ],
)
def test_fit_names_stored_splits_that_it_does_not_use(study, splits, words, message):
    done = study(splits=splits)(*words)
    assert done.exit_code == 0, done.output
    assert ("This run uses another split" in done.stdout) == (message is not None)
    assert message is None or message in " ".join(done.stdout.split())


def test_fit_resume_of_a_missing_run_reports_a_new_run(fit, tmp_path):
    done = fit("--recipe", "tiny.toml", "--run", "onee", "--resume")
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[0] == "No run 'onee' yet: starting it. Did you mean 'one'?"
    assert "starting it" not in fit("--run", "onee", "--resume").output
    assert "starting it" not in fit("--recipe", "tiny.toml", "--run", "other").output


@pytest.mark.parametrize("rank", ["0", "1"])
def test_of_several_processes_only_the_first_speaks(fit, monkeypatch, rank):
    words = ["--recipe", "tiny.toml", "--run", f"of-{rank}"]
    assert fit(*words).exit_code == 0
    monkeypatch.setenv("LOCAL_RANK", rank)
    done = fit(*words, "--resume")
    assert done.exit_code == 0, done.output
    assert bool(done.output) is (rank == "0")


def test_fit_reports_a_missing_device_before_creating_a_run(fit, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    done = fit("--recipe", "tiny.toml", "--run", "on-gpu", "--device", "cuda")
    assert done.exit_code == 1
    assert "Device cuda is not available: PyTorch found no CUDA GPU" in done.stderr
    assert not Path("runs/on-gpu").exists()


def partly_given(store) -> None:
    """Give two of the recordings of a store of make_store a split."""
    table = SnippetTable.read(store.item("snippets", "default"))
    splits = ("train", "test") + ("",) * (len(table.recordings) - 2)
    write_snippets(store, replace(table, splits=splits), "partly")


def test_fit_partly_given_split_exits_with_the_option(fit, tmp_path):
    partly_given(make_store(tmp_path / "store", subjects=4))
    words = ["fit", str(tmp_path / "store"), "--recipe", "tiny.toml", "--run", "partly", "--snippets", "partly"]
    done = runner.invoke(app, words)
    assert done.exit_code == 2
    assert done.stderr.splitlines()[-2:] == [
        "2 of 12 labeled recordings have a given split, and 10 have none, such as 's1_up_0'.",
        "Give each recording a split (column 'split' of the table of recordings), or ignore the given ones with --by "
        "subject, session or recording.",
    ]
    assert not Path("runs/partly").exists()


def test_fit_partly_given_split_asks_at_a_terminal(fit, tmp_path, monkeypatch):
    partly_given(make_store(tmp_path / "store", subjects=4))
    monkeypatch.setattr("actionprep.cli.output.can_ask", lambda: True)
    words = ["fit", str(tmp_path / "store"), "--recipe", "tiny.toml", "--snippets", "partly", "--threads", "1", "--run"]
    done = runner.invoke(app, [*words, "asked"], input="session\n")
    assert done.exit_code == 2  # sessions are not known
    assert "have no session" in done.stderr
    done = runner.invoke(app, [*words, "asked"], input="recording\n")
    assert done.exit_code == 0, done.output
    assert json.loads(Path("runs/asked/run.json").read_text())["split"]["by"] == "recording"
    stopped = runner.invoke(app, [*words, "stopped"], input="stop\n")
    assert stopped.exit_code == 2
    assert "ignore the given ones with --by" in stopped.stderr


def test_fit_takes_store_urls(fit, project, tmp_path):
    url = f"file://{project / 'store'}"
    words = ["--recipe", "tiny.toml", "--threads", "1", "--by", "subject", "--val", "0", "--run"]
    done = runner.invoke(app, ["fit", url, *words, "by-url"])
    assert done.exit_code == 0, done.output
    assert json.loads(Path("runs/by-url/run.json").read_text())["store"] == str(project / "store")
    shutil.make_archive(str(tmp_path / "store"), "zip", project / "store")
    packed = f"zip::{tmp_path / 'store.zip'}"
    assert Store(packed).items() == Store(project / "store").items()
    done = runner.invoke(app, ["fit", "s3:/bucket/store", *words, "none"])
    assert done.exit_code == 2
    assert "No store at s3:/bucket/store" in done.output
    with pytest.raises(UserError, match=r"names the host 'disk'\. Write file:///PATH, with three slashes"):
        Store("file://disk/store")


def test_folds_have_a_joint_test_and_a_final_model(fit):
    words = ("--recipe", "tiny.toml", "--run", "joint", "--folds", "subject", "--val", "0")
    done = fit(*words)
    assert done.exit_code == 0, done.output
    done = runner.invoke(app, ["predict", "--run", "joint", "--store", "store", "--recording", "s1_left_0"])
    assert done.exit_code == 2
    text = " ".join(done.stderr.split())
    assert "contains one run per fold or stored split, and no final model. 'actiontrain test runs/joint' prints" in text
    assert "--resume --final" in text
    done = runner.invoke(app, ["test", "joint", "--json"])
    assert done.exit_code == 0, done.output
    tested = json.loads(done.stdout)
    arrays = [
        [np.load(f"runs/joint/fold-0{fold}/{name}.npy") for fold in (1, 2, 3, 4)] for name in ("actuals", "predictions")
    ]
    pooled = np.zeros((3, 3), int)
    for actual, predicted in zip(*map(np.concatenate, arrays), strict=True):
        pooled[actual, predicted] += 1
    assert tested["confusion"] == pooled.tolist()
    assert tested["summary"]["accuracy"]["value"] == pytest.approx(np.trace(pooled) / 12)
    assert len(tested["folds"]) == 4
    printed = runner.invoke(app, ["test", "joint"]).output
    assert "Confusion of all folds" in printed
    assert "Pooled, 12 snippets" in printed

    done = fit(*words, "--resume", "--final")
    assert done.exit_code == 0, done.output
    final = json.loads(Path("runs/joint/final/run.json").read_text())
    assert [len(final["split"]["rows"][part]) for part in ("train", "val", "test")] == [12, 0, 0]
    words = ["predict", "--run", "joint", "--store", "store", "--recording", "s1_left_0", "--device", "cpu"]
    done = runner.invoke(app, words)
    assert done.exit_code == 0, done.output
    assert Path("prediction/joint/s1_left_0/timeline.csv").exists()
    assert fit("--recipe", "tiny.toml", "--final").exit_code == 2
