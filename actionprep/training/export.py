"""A trained model as one file for other programs: ONNX or torch.export, checked to give the model's own logits."""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import json
import logging
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from actionprep.datasets.paths import no_link
from actionprep.errors import SetupError, UserError, nearest

if TYPE_CHECKING:
    from torch import Tensor, nn

    from actionprep.training.checkpoints import Checkpoint
    from actionprep.training.run import Run

Format = Literal["onnx", "torch-export"]
FORMATS: dict[str, str] = {"onnx": "model.onnx", "torch-export": "model.pt2"}
"""Formats with the name of their file."""

CLOSE = 1e-3
"""Logits may differ by this share of the largest one; programs add in another order."""


@dataclass(frozen=True)
class ExportedArray:
    """An array that a file takes or gives: "batch" in its shape where any number of samples may be, and what it means."""

    shape: tuple[int | str, ...]
    dtype: str
    meaning: str = ""


@dataclass(frozen=True)
class Export:
    """A file, what it takes and gives, and how near its logits come to the model's own.

    inputs, logits: those of the file: what does not reach the logits is not there. difference: largest one of the
    logits over snippets that it was checked on, as a share of the largest logit. fixed_batch: why the file takes batches
    of that one size alone; None: of any size. state: what became of the state that the run's model carries from window to
    window; None of a run that carries none.
    """

    path: Path
    format: Format
    inputs: dict[str, ExportedArray]
    logits: ExportedArray
    labels: tuple[str, ...]
    difference: float
    fixed_batch: str | None = None
    state: str | None = None

    @property
    def description(self) -> Path:
        """The file beside it that tells its inputs, its labels and how the input was made; one for each format."""
        return self.path.with_name(f"{self.path.name}.json")

    def document(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "path": str(self.path), "format": self.format, "labels": list(self.labels), "difference": self.difference,
            "inputs": {name: asdict(one) for name, one in self.inputs.items()}, "outputs": {"logits": asdict(self.logits)},
            "fixed_batch": self.fixed_batch, "state": self.state,
        }  # fmt: skip


def export_run(run: Run | str | Path, to: Format = "onnx", *, out: str | Path | None = None, batch: int = 2) -> Export:
    """Write the best model of a run as one file, and check it on snippets of its store.

    to:    "onnx", for onnxruntime and others; "torch-export", for `torch.export.load` without this package.
    out:   the file; None: model.onnx or model.pt2 in the run's folder. Beside it lies its description, model.onnx.json or
           model.pt2.json: shape, type and meaning of each input, in which order the labels stand, how the input was made.
    batch: snippets to export and check with.

    Raises UserError for an unknown format or a model that cannot be exported, with the reason; SetupError when
    packages are missing or the file gives other logits.
    """
    import numpy as np

    from actionprep.datasets.store.opening import open_store
    from actionprep.training.checkpoints import load_checkpoint
    from actionprep.training.datasets import SnippetDataset, model_inputs, read_table
    from actionprep.training.run import Run, write_text

    check_format(to)
    run = run if isinstance(run, Run) else Run.open(run)
    facts = run.facts
    checkpoint = load_checkpoint(run.best)
    store = open_store(run.store).snapshot()
    rows = np.array(facts["split"]["rows"]["test"] or facts["split"]["rows"]["train"], np.int64)
    dataset = SnippetDataset(
        store, read_table(store, facts["snippets"]), checkpoint.recipe.input, views=checkpoint.views or None, rows=rows
    )
    # An export is made with two snippets at least: an axis of length one would be taken for a constant.
    chosen = np.resize(rows, max(batch, 2)).tolist()
    inputs = model_inputs(checkpoint.model, dataset.batch(chosen, augment=True))
    path = Path(out) if out is not None else no_link(run.folder / FORMATS[to])
    meanings = {**dataset.reader.meanings(), "logits": _meaning_of_logits(checkpoint)}
    made = export_model(checkpoint.model, inputs, path, to=to, labels=checkpoint.labels, meanings=meanings)
    if checkpoint.recipe.carry:
        made = replace(made, state=_NO_STATE)
    card = {key: value for key, value in checkpoint.card.items() if key != "recipe"}
    write_text(made.description, json.dumps({**made.document(), "card": card}, indent=2) + "\n")
    return made


def export_model(
    model: nn.Module,
    inputs: Mapping[str, Tensor],
    path: str | Path,
    *,
    to: Format = "onnx",
    labels: tuple[str, ...] = (),
    meanings: Mapping[str, str] | None = None,
) -> Export:
    """Write a model as one file and hold the file's logits of these inputs against the model's.

    inputs:   arrays by the names of the model's forward, with the batch axis first, at least two samples.
    meanings: of inputs and of "logits", for who uses the file.

    Raises UserError when the model cannot be exported, SetupError when the file gives other logits.
    """
    import torch

    check_format(to)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    model = model.eval()
    # Before the export, so that what a model itself raises is not taken for a refusal of the exporter.
    with torch.no_grad():
        expected = model(**inputs)
    program, fixed = _program(model, inputs)
    taken = list(inputs)
    with torch.no_grad():
        if to == "onnx":
            taken = _write_onnx(program, inputs, path)
            logits = _run_onnx(path, inputs)
        else:
            with _quiet():
                torch.export.save(program, path)
                logits = torch.export.load(path).module()(**inputs)
    scale = max(float(expected.abs().max()), 1e-6)
    difference = float((logits - expected).abs().max()) / scale
    if not difference <= CLOSE:
        raise SetupError(
            f"{path} gives other logits than the model: they differ by {difference:.1%} of the largest one, at most "
            f"{CLOSE:.1%} was expected. Do not use the file. Another version of torch or onnxruntime may export it right."
        )

    def about(name: str, values: Tensor) -> ExportedArray:
        shape = ("batch" if fixed is None else len(values), *values.shape[1:])
        return ExportedArray(shape, str(values.dtype).removeprefix("torch."), (meanings or {}).get(name, ""))

    arrays = {name: about(name, values) for name, values in inputs.items() if name in taken}
    return Export(path, to, arrays, about("logits", logits), labels, difference, fixed)


_NO_STATE = (
    "Not in the file: each window starts anew, though the model of this run goes on from the state after the window before "
    "(carry = true), as 'actiontrain predict' lets it. What that costs, 'actiontrain test RUN --no-carry' tells."
)


def _meaning_of_logits(checkpoint: Checkpoint) -> str:
    axes = "batch, instant, label" if checkpoint.recipe.targets == "frame" else "batch, label"
    squash = "the sigmoid of each" if checkpoint.card["several_labels"] else "the softmax over labels"
    return f"axes {axes} in the order of `labels`; {squash} gives probabilities"


def check_format(to: str) -> None:
    """Raise UserError for an unknown format, SetupError when its packages are missing."""
    if to not in FORMATS:
        raise UserError(f"No export format '{to}'.{nearest(to, FORMATS)} Formats: {', '.join(FORMATS)}.")
    needed = ("onnx", "onnxscript", "onnxruntime") if to == "onnx" else ()
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise SetupError(
            f"Export to ONNX needs {' and '.join(missing)}, not installed here: pip install 'actionprep[export]'. "
            "Without them: 'actiontrain export --to torch-export'."
        )


def _program(model: nn.Module, inputs: Mapping[str, Tensor]) -> tuple[Any, str | None]:
    """The model as one graph, of any number of samples where it can be, and why it cannot."""
    import torch

    free = {name: {0: torch.export.Dim("batch", min=1, max=4096)} for name in inputs}
    named = _with_named_inputs(model, inputs)
    # What torch.export refuses it raises as RuntimeErrors of many kinds; anything else is a fault, and is seen.
    with _quiet(), torch.no_grad():
        try:
            return torch.export.export(named, (), dict(inputs), dynamic_shapes=free), None
        except RuntimeError as first:
            try:
                return torch.export.export(named, (), dict(inputs)), _reason(first)
            except RuntimeError as second:
                raise UserError(_cannot(model, second)) from second


def _with_named_inputs(model: nn.Module, names: Iterable[str]) -> nn.Module:
    """The model, or one that has the same logits and a parameter for each array: torch.export frees axes by parameters."""
    if not any(one.kind is one.VAR_KEYWORD for one in inspect.signature(model.forward).parameters.values()):
        return model
    from torch import nn

    def forward(**arrays: Tensor) -> Any:
        return model(**arrays)

    parameters = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in names]
    forward.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    named = nn.Module()
    named.model, named.forward = model, forward
    return named.eval()


def _reason(error: Exception) -> str:
    """The first line of what an exporter says, which may go on for pages; of a list of constraints the first one."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    listed = lines[1].removeprefix("- ").partition(". ")[0] if lines[1:] and lines[1].startswith("- ") else ""
    return (listed or lines[0])[:300]


def _cannot(model: nn.Module, error: Exception) -> str:
    return (
        f"{type(model).__name__} cannot be exported: torch.export does not follow its forward ({_reason(error)}). Use the "
        "run as it is, with 'actiontrain predict' or actionprep.training."
    )


def _write_onnx(program: Any, inputs: Mapping[str, Tensor], path: Path) -> list[str]:
    """Write the file; returns the names of its inputs: the exporter leaves out those that do not reach the logits."""
    import onnx
    import torch

    with _quiet():
        try:
            made = torch.onnx.export(
                program,
                kwargs=dict(inputs),
                dynamo=True,
                input_names=list(inputs),
                output_names=["logits"],
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            reason = _reason(error.__cause__ if isinstance(error.__cause__, Exception) else error)
            raise UserError(
                f"This model has an operation that ONNX does not: {reason}. Use 'actiontrain export --to "
                "torch-export' instead."
            ) from error
        assert made is not None
        made.save(str(path), external_data=False)
    _name_batch_axis(path)
    return [one.name for one in onnx.load(path).graph.input]


def _name_batch_axis(path: Path) -> None:
    """Call the first axis of inputs and logits `batch`: the exporter gives it a symbol's number."""
    import onnx

    model = onnx.load(path)
    graph = model.graph
    symbols = {one.type.tensor_type.shape.dim[0].dim_param for one in graph.input if one.type.tensor_type.shape.dim} - {
        "",
        "batch",
    }
    if not symbols:
        return
    word = re.compile(rf"\b({'|'.join(map(re.escape, sorted(symbols)))})\b")
    for one in (*graph.input, *graph.output, *graph.value_info):
        for dim in one.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = word.sub("batch", dim.dim_param)
    onnx.save(model, path)


def _run_onnx(path: Path, inputs: Mapping[str, Tensor]) -> Tensor:
    import onnxruntime
    import torch

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    # The exporter leaves out inputs that do not reach the logits.
    taken = {one.name for one in session.get_inputs()}
    found = session.run(["logits"], {name: values.numpy() for name, values in inputs.items() if name in taken})
    return torch.from_numpy(found[0])


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporters tell their own developers much."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [one.level for one in loggers]
    for one in loggers:
        one.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for one, level in zip(loggers, levels, strict=True):
            one.setLevel(level)
