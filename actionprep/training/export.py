"""Export a trained model to ONNX or torch.export, and compare its logits with those of the model."""

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
"""File name by format."""

CLOSE = 1e-3
"""Maximum difference of the logits as a share of the largest one: runtimes sum in another order."""


@dataclass(frozen=True)
class ExportedArray:
    """An input or output of an exported file: shape with "batch" for a free batch axis, dtype and meaning."""

    shape: tuple[int | str, ...]
    dtype: str
    meaning: str = ""


@dataclass(frozen=True)
class Export:
    """An exported file with its inputs and outputs.

    Attributes:
        path: The file.
        format: "onnx" or "torch-export".
        inputs: Inputs of the file by name. Inputs that do not affect the logits are left out.
        logits: Output of the file.
        labels: Names of the classes, in the order of the logits.
        difference: Largest difference between the logits of file and model on the checked snippets, as a share of the
            largest logit.
        fixed_batch: Why the file only accepts batches of one size; None if any size is possible.
        state: Note on the state that the run's model carries from window to window; None if it carries none.
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
        """The JSON file next to it, with its inputs, labels, and how the input was made."""
        return self.path.with_name(f"{self.path.name}.json")

    def document(self) -> dict[str, Any]:
        """Return the attributes as plain values."""
        return {
            "path": str(self.path), "format": self.format, "labels": list(self.labels), "difference": self.difference,
            "inputs": {name: asdict(a) for name, a in self.inputs.items()}, "outputs": {"logits": asdict(self.logits)},
            "fixed_batch": self.fixed_batch, "state": self.state,
        }  # fmt: skip


def export_run(run: Run | str | Path, to: Format = "onnx", *, out: str | Path | None = None, batch: int = 2) -> Export:
    """Export the best model of a run and check the file on snippets of its store.

    A description is written next to the file (model.onnx.json or model.pt2.json): shape, dtype and meaning of each input,
    the order of the labels, and how the input was made.

    Args:
        run: Run or its folder.
        to: "onnx" for onnxruntime and others; "torch-export" for `torch.export.load` without this package.
        out: The file; None: model.onnx or model.pt2 in the run's folder.
        batch: Number of snippets to export and check with.

    Returns:
        The exported file.

    Raises:
        UserError: If the format is unknown, or if the model cannot be exported.
        SetupError: If packages are missing, or if the file computes other logits than the model.
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
    # Export with at least two snippets: an axis of length one would become a constant.
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
    """Export a model and compare the logits of the file with those of the model.

    Args:
        model: The model.
        inputs: Arrays by parameter name of the model's forward, batch axis first, at least two samples.
        path: File to write.
        to: "onnx" or "torch-export".
        labels: Names of the classes, in the order of the logits.
        meanings: Descriptions of the inputs and of "logits", for users of the file.

    Returns:
        The exported file.

    Raises:
        UserError: If the model cannot be exported.
        SetupError: If packages are missing, or if the file computes other logits than the model.
    """
    import torch

    check_format(to)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    model = model.eval()
    # Run the model before the export, so that its own errors are not reported as errors of the exporter.
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
            f"{path} computes other logits than the model: they differ by {difference:.1%} of the largest one, expected at "
            f"most {CLOSE:.1%}. Do not use the file. Another version of torch or onnxruntime may export it correctly."
        )

    def about(name: str, values: Tensor) -> ExportedArray:
        shape = ("batch" if fixed is None else len(values), *values.shape[1:])
        return ExportedArray(shape, str(values.dtype).removeprefix("torch."), (meanings or {}).get(name, ""))

    arrays = {name: about(name, values) for name, values in inputs.items() if name in taken}
    return Export(path, to, arrays, about("logits", logits), labels, difference, fixed)


_NO_STATE = (
    "Not in the file: each window starts with an empty state, but the model of this run carries its state from window to "
    "window (carry = true, as in 'actiontrain predict'). 'actiontrain test RUN --no-carry' measures the difference."
)


def _meaning_of_logits(checkpoint: Checkpoint) -> str:
    axes = "batch, time step, label" if checkpoint.recipe.targets == "frame" else "batch, label"
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
    """Trace the model with a free batch axis if possible; returns the program, and why the batch is fixed or None."""
    import torch

    free = {name: {0: torch.export.Dim("batch", min=1, max=4096)} for name in inputs}
    named = _with_named_inputs(model, inputs)
    # torch.export reports unsupported models with subclasses of RuntimeError; other errors are bugs and propagate.
    with _quiet(), torch.no_grad():
        try:
            return torch.export.export(named, (), dict(inputs), dynamic_shapes=free), None
        except RuntimeError as first:
            try:
                return torch.export.export(named, (), dict(inputs)), _reason(first)
            except RuntimeError as second:
                raise UserError(_cannot(model, second)) from second


def _with_named_inputs(model: nn.Module, names: Iterable[str]) -> nn.Module:
    """Give a model with **kwargs one named parameter per array, because torch.export frees axes by parameter."""
    if not any(
        parameter.kind is parameter.VAR_KEYWORD for parameter in inspect.signature(model.forward).parameters.values()
    ):
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
    """Shorten the message of an exporter to its first line, or to the first of a list of constraints."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    listed = lines[1].removeprefix("- ").partition(". ")[0] if lines[1:] and lines[1].startswith("- ") else ""
    return (listed or lines[0])[:300]


def _cannot(model: nn.Module, error: Exception) -> str:
    return (
        f"{type(model).__name__} cannot be exported: torch.export cannot trace its forward ({_reason(error)}). Use the "
        "run itself, with 'actiontrain predict' or actionprep.training."
    )


def _write_onnx(program: Any, inputs: Mapping[str, Tensor], path: Path) -> list[str]:
    """Write the file and return the names of its inputs; the exporter drops inputs that do not affect the logits."""
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
                f"This model has an operation that ONNX does not support: {reason}. Use 'actiontrain export --to "
                "torch-export' instead."
            ) from error
        assert made is not None
        made.save(str(path), external_data=False)
    _name_batch_axis(path)
    return [value.name for value in onnx.load(path).graph.input]


def _name_batch_axis(path: Path) -> None:
    """Name the first axis of inputs and logits `batch` instead of the exporter's symbol."""
    import onnx

    model = onnx.load(path)
    graph = model.graph
    symbols = {
        value.type.tensor_type.shape.dim[0].dim_param for value in graph.input if value.type.tensor_type.shape.dim
    } - {
        "",
        "batch",
    }
    if not symbols:
        return
    word = re.compile(rf"\b({'|'.join(map(re.escape, sorted(symbols)))})\b")
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = word.sub("batch", dim.dim_param)
    onnx.save(model, path)


def _run_onnx(path: Path, inputs: Mapping[str, Tensor]) -> Tensor:
    import onnxruntime
    import torch

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    # The exporter drops inputs that do not affect the logits.
    taken = {value.name for value in session.get_inputs()}
    outputs = session.run(["logits"], {name: values.numpy() for name, values in inputs.items() if name in taken})
    return torch.from_numpy(outputs[0])


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the log messages of the exporters."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
