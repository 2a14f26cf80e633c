"""Exports: files for onnxruntime and torch without this package, with the logits of the model."""

import importlib.util
import inspect
import json
import warnings

import numpy as np
import pytest
import torch
from frame_fakes import frame_recipe, make_changing_store
from tiny_models import tiny
from torch import nn
from training_fakes import make_store, tiny_recipe
from typer.testing import CliRunner

from actionprep.cli.train import app
from actionprep.datasets.split_choice import SplitChoice
from actionprep.datasets.store.zarr_store import Store
from actionprep.errors import SetupError, UserError
from actionprep.training.checkpoints import load_checkpoint
from actionprep.training.datasets import SnippetDataset
from actionprep.training.evaluation.result_files import saved_arrays
from actionprep.training.export import ExportedArray, check_format, export_model, export_run
from actionprep.training.fit import fit
from actionprep.training.models.fusion import MidFusion
from actionprep.training.test import run_test

SPLIT = SplitChoice(train=("1", "2", "3"), test=("4",))
# One model per module; the others of a module have the same parts.
FAMILIES = ["timesformer", "videomae", "vivit-1", "heatmap-transformer", "motionbert", "poseconv3d-small",
            "view-transformer-maaf", "track-lstm", "i3d-stn-resizer"]  # fmt: skip
needs_onnx = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")),
    reason="the extra 'export' is not installed",
)
# The exporter warns about its dependencies.
quiet = pytest.mark.filterwarnings("ignore")


def inputs_of(model: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    return {next(iter(inspect.signature(model.forward).parameters)): x}


def tiny_of(name: str) -> tuple[nn.Module, torch.Tensor]:
    from tiny_models import TINY

    return tiny(name, **({"depth": 1} if "depth" in TINY[name][0] else {}))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    store = make_store(folder / "store", subjects=4)
    result = fit(store, tiny_recipe(epochs=1), folder / "run", split=SPLIT, tensorboard=False)
    run_test(result, store, repeats=10)
    return result


@quiet
@needs_onnx
@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_gives_its_logits_in_onnxruntime(name, tmp_path):
    import onnxruntime

    model, x = tiny_of(name)
    made = export_model(model, inputs_of(model, x), tmp_path / "model.onnx")
    [(argument, entry)] = made.inputs.items()
    assert entry.shape == ("batch", *x.shape[1:])
    # Another batch size than in the export.
    more = torch.randn(3, *x.shape[1:], generator=torch.Generator().manual_seed(1))
    session = onnxruntime.InferenceSession(str(made.path), providers=["CPUExecutionProvider"])
    [logits] = session.run(["logits"], {argument: more.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(logits, model.eval()(more).numpy(), rtol=1e-3, atol=1e-4)


@quiet
@pytest.mark.parametrize("name", ["timesformer", "motionbert", "track-lstm", "poseconv3d-small"])
def test_families_reload_from_torch_export_for_any_batch(name, tmp_path):
    model, x = tiny_of(name)
    made = export_model(model, inputs_of(model, x), tmp_path / "model.pt2", to="torch-export")
    loaded = torch.export.load(made.path).module()
    more = torch.randn(3, *x.shape[1:], generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(loaded(**inputs_of(model, more)), model.eval()(more), rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def exported(run):
    """Return the output of the export command for the run."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        done = CliRunner().invoke(app, ["export", str(run.folder), "--to", "torch-export", "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_export_command_writes_the_file_and_its_description(run, exported):
    assert exported["path"] == str(run.folder / "model.pt2")
    about = json.loads((run.folder / "model.pt2.json").read_text())
    assert about["labels"] == ["left", "right", "up"]
    assert about["card"]["pipeline"]["stages"]["tracks"]
    assert all(entry["shape"][0] == "batch" for entry in about["inputs"].values())
    assert about["outputs"]["logits"]["shape"] == ["batch", 3]
    assert "softmax" in about["outputs"]["logits"]["meaning"]
    assert about["state"] is None
    assert about["difference"] < 1e-4


def test_export_description_has_type_and_meaning_of_each_input(run, exported):
    about = exported["inputs"]
    batch = SnippetDataset(Store(run.facts["store"]), "default", run.recipe.input, rows=[0]).batch([0])
    assert {name: entry["dtype"] for name, entry in about.items()} == {
        name: str(batch[name].dtype).removeprefix("torch.") for name in about
    }
    assert (
        "0 is the center of the moving region of the snippet in that view and 1 half its height"
        in about["xy"]["meaning"]
    )
    assert all(entry["meaning"] for entry in about.values())


@quiet
def test_export_of_a_run_with_state_warns_that_state_is_missing(tmp_path):
    store = make_changing_store(tmp_path / "store")
    split = SplitChoice(train=("0", "1", "2", "3"), test=("4", "5"), val_share=0.0)
    recipe = frame_recipe(epochs=1, carry=True, input__region="recording")
    made = fit(store, recipe, tmp_path / "run", split=split, tensorboard=False, device="cpu")
    done = CliRunner().invoke(app, ["export", str(made.folder), "--to", "torch-export"])
    assert done.exit_code == 0, done.output
    assert "State: not in the file: each window starts with an empty state" in " ".join(done.stderr.split())
    about = json.loads((made.folder / "model.pt2.json").read_text())
    assert about["state"].startswith("Not in the file: each window starts with an empty state")
    assert about["outputs"]["logits"]["shape"] == ["batch", 12, len(about["labels"])]
    assert about["outputs"]["logits"]["meaning"].startswith("axes batch, time step, label")
    assert "moving region of the recording" in about["inputs"]["xy"]["meaning"]


@quiet
def test_the_exported_run_gives_the_logits_of_its_test(run, exported):
    dataset = SnippetDataset(
        Store(run.facts["store"]), "default", run.recipe.input, rows=run.facts["split"]["rows"]["test"]
    )
    batch = dataset.batch(dataset.rows.tolist())
    with torch.no_grad():
        logits = torch.export.load(exported["path"]).module()(**{name: batch[name] for name in exported["inputs"]})
    np.testing.assert_allclose(logits.numpy(), saved_arrays(run)["logits"], rtol=1e-3, atol=1e-4)


@quiet
def test_each_format_of_one_run_keeps_its_own_description(run, tmp_path, monkeypatch):
    # The ONNX writer is replaced, so that its packages are not needed.
    monkeypatch.setattr(
        "actionprep.training.export._write_onnx", lambda program, inputs, path: path.write_bytes(b"") or list(inputs)
    )
    monkeypatch.setattr("actionprep.training.export._run_onnx", lambda path, inputs: _logits_of(run, inputs))
    monkeypatch.setattr("actionprep.training.export.check_format", lambda to: None)
    made = [
        export_run(run, "onnx", out=tmp_path / "model.onnx"),
        export_run(run, "torch-export", out=tmp_path / "model.pt2"),
    ]
    assert [entry.description.name for entry in made] == ["model.onnx.json", "model.pt2.json"]
    assert [json.loads(entry.description.read_text())["format"] for entry in made] == ["onnx", "torch-export"]
    assert [json.loads(entry.description.read_text())["path"] for entry in made] == [str(entry.path) for entry in made]


def _logits_of(run, inputs):
    with torch.no_grad():
        return load_checkpoint(run.best).model.eval()(**inputs)


@quiet
@needs_onnx
@pytest.mark.slow
def test_a_run_is_exported_to_onnx(run, tmp_path):
    made = export_run(run, out=tmp_path / "it.onnx")
    assert made.difference < 1e-4
    assert json.loads((tmp_path / "it.onnx.json").read_text())["format"] == "onnx"
    import onnxruntime

    session = onnxruntime.InferenceSession(str(tmp_path / "it.onnx"), providers=["CPUExecutionProvider"])
    assert {entry.shape[0] for entry in (*session.get_inputs(), *session.get_outputs())} == {"batch"}
    # The exporter omits inputs without effect on the logits; the description lists the remaining inputs.
    assert {entry.name: tuple(entry.shape) for entry in session.get_inputs()} == {
        name: entry.shape for name, entry in made.inputs.items()
    }


class Branching(nn.Module):
    """A model with control flow that depends on values."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 2)

    def forward(self, clip):
        return self.head(clip) if clip.sum().item() > 0 else self.head(-clip)


@quiet
def test_failed_export_states_the_reason(tmp_path):
    with pytest.raises(UserError, match=r"Branching cannot be exported: torch\.export cannot trace its forward \("):
        export_model(Branching(), {"clip": torch.ones(2, 4)}, tmp_path / "model.pt2", to="torch-export")


class OfTwo(nn.Module):
    """A model that treats batches of two samples differently."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 2)

    def forward(self, clip):
        return self.head(clip) if len(clip) == 2 else self.head(-clip)


@quiet
def test_export_with_a_fixed_batch_states_the_reason(tmp_path):
    made = export_model(OfTwo(), {"clip": torch.ones(2, 4)}, tmp_path / "model.pt2", to="torch-export")
    assert made.inputs == {"clip": ExportedArray((2, 4), "float32")}
    assert "specialized it to be a constant (2)" in made.fixed_batch
    assert made.document()["fixed_batch"] == made.fixed_batch
    free = export_model(
        nn.Sequential(nn.Linear(4, 2)), {"input": torch.ones(2, 4)}, tmp_path / "free.pt2", to="torch-export"
    )
    assert free.document()["fixed_batch"] is None


@quiet
def test_export_command_and_description_state_a_fixed_batch(run, tmp_path, monkeypatch):
    export = torch.export.export

    def refusing(*args, dynamic_shapes=None, **options):
        if dynamic_shapes is not None:
            raise RuntimeError("Constraints violated (batch)!\n  - the batch is 2. And more.")
        return export(*args, **options)

    monkeypatch.setattr("torch.export.export", refusing)
    path = tmp_path / "model.pt2"
    done = CliRunner().invoke(app, ["export", str(run.folder), "--to", "torch-export", "--out", str(path)])
    assert done.exit_code == 0, done.output
    message = "The exported model only accepts batches of 2 snippets, because torch.export fixed the batch size (the batch is 2)."
    assert message in " ".join(done.stderr.split())
    assert json.loads((tmp_path / "model.pt2.json").read_text())["fixed_batch"] == "the batch is 2"


@quiet
def test_export_does_not_hide_program_faults(tmp_path, monkeypatch):
    def faulty(*args, **options):
        raise AssertionError("tree_name")

    monkeypatch.setattr("torch.export.export", faulty)
    with pytest.raises(AssertionError, match="tree_name"):
        export_model(OfTwo(), {"clip": torch.ones(2, 4)}, tmp_path / "model.pt2", to="torch-export")


def joined() -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """Return a small mid fusion of tracks and frames, and two samples for it."""
    torch.manual_seed(0)
    tracks = {"model": "view-transformer", "sizes": {"num_views": 1, **tiny_recipe().sizes}}
    frames = {"model": "i3d-small", "sizes": {"width_multiplier": 0.0625}}
    return MidFusion(num_classes=3, parts=[tracks, frames]).eval(), joined_samples(2)


def joined_samples(size: int) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(size)
    return {
        "part0_xy": torch.rand(size, 8, 1, 8, 2, generator=random),
        "part0_valid": torch.rand(size, 8, 1, 8, generator=random) < 0.8,
        "part0_frame_valid": torch.arange(8).expand(size, 8) < 7,
        "part1_clip": torch.randint(0, 256, (size, 3, 4, 16, 16), generator=random).to(torch.uint8),
    }


@quiet
@pytest.mark.parametrize("to", ["torch-export", pytest.param("onnx", marks=[needs_onnx, pytest.mark.slow])])
def test_a_mid_fusion_is_exported_for_batches_of_any_size(tmp_path, to):
    model, inputs = joined()
    made = export_model(model, inputs, tmp_path / "model", to=to)
    assert made.fixed_batch is None
    assert {name: entry.shape[0] for name, entry in made.inputs.items()} == dict.fromkeys(inputs, "batch")
    for size in (1, 2, 5):
        samples = joined_samples(size)
        if to == "onnx":
            import onnxruntime

            session = onnxruntime.InferenceSession(str(made.path), providers=["CPUExecutionProvider"])
            [logits] = session.run(["logits"], {name: values.numpy() for name, values in samples.items()})
        else:
            logits = torch.export.load(made.path).module()(**samples).detach().numpy()
        with torch.no_grad():
            np.testing.assert_allclose(logits, model(**samples).numpy(), rtol=1e-3, atol=1e-4)


@quiet
def test_a_file_with_other_logits_is_not_passed_off_as_the_model(tmp_path):
    model, x = tiny_of("track-lstm")
    with pytest.raises(SetupError, match=r"computes other logits than the model: they differ by .*Do not use"):
        export_model(_Apart(model), inputs_of(model, x), tmp_path / "m.pt2", to="torch-export")


class _Apart(nn.Module):
    """A model with a different output outside of an export."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, xy):
        logits = self.model(xy)
        return logits if torch.compiler.is_exporting() else logits + 1


def test_export_reports_unknown_formats_and_missing_packages(monkeypatch):
    with pytest.raises(
        UserError, match=r"No export format 'onx'\. Did you mean 'onnx'\? Formats: onnx, torch-export\."
    ):
        check_format("onx")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "onnxruntime" else True)
    with pytest.raises(SetupError, match=r"needs onnxruntime, not installed here: pip install 'actionprep\[exp"):
        check_format("onnx")
    check_format("torch-export")
