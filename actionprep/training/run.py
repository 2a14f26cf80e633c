"""The folder of a training run: its settings, results and checkpoints."""

from __future__ import annotations

import contextlib
import csv
import functools
import hashlib
import json
import os
import platform
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError

from actionprep.datasets import atomic_files
from actionprep.datasets.atomic_files import atomic_file
from actionprep.datasets.paths import MAX_NAME_BYTES, MAX_NAMES_BYTES, below, no_link
from actionprep.datasets.store.provenance import difference, made_alike, provenance_of
from actionprep.errors import SetupError, UserError, name_list, nearest
from actionprep.json_values import plain
from actionprep.settings import canonical_json
from actionprep.training.recipes import Recipe

if TYPE_CHECKING:
    import numpy as np

    from actionprep.datasets.store.zarr_store import Store

Phase = Literal["validate", "refit"]
"""Phases of a training: on train, validated on val; then, if the recipe has a refit, on train and val together."""

RECIPE, FACTS, SPLIT, METRICS = "recipe.toml", "run.json", "split.csv", "metrics.csv"
BEST, LAST, VALIDATED, START = "best.ckpt", "last.ckpt", "validated.ckpt", "start.ckpt"
EPOCHS = "epochs"
"""Subfolder with the checkpoint of each epoch."""
REPORT, TESTED = "report.html", "test.json"
FINAL = "final"
"""Subfolder of a cross-validation with the run on the recordings of all folds."""
FUSION = "fusion.json"
"""File that 'actiontrain fuse' writes instead of run.json: the fused runs and their weights."""
_VERSIONS = ("actionprep", "torch", "lightning", "numpy", "zarr")


class _Groups(BaseModel, strict=True):
    by: str = ""
    names: list[str] = []


class _SplitFacts(BaseModel, strict=True):
    by: str = ""
    why: str = ""
    stored: str | None = None
    folds: int | None = None
    rows: dict[str, list[Annotated[int, Field(ge=0, lt=2**31)]]] = {}
    groups: dict[str, list[str]] = {}
    shown: dict[str, _Groups] = {}
    notes: list[str] = []


_CHECKSUM = "sha256"


def _checksum(facts: Mapping[str, Any]) -> str:
    """SHA-256 of the values of run.json as JSON with sorted keys."""
    as_read = json.loads(json.dumps(facts))  # JSON turns all keys into strings
    return hashlib.sha256(json.dumps(as_read, sort_keys=True).encode()).hexdigest()


class _State(BaseModel, strict=True):
    phase: Phase = "validate"
    complete: bool = False


class _Facts(BaseModel, strict=True):
    """Types of the values of run.json. Each has a default, because runs of earlier versions do not have all of them."""

    store: str = ""
    store_from_here: str = ""
    store_digest: str = ""
    input_digest: str = ""
    snippets: str = ""
    snippets_digest: str = ""
    labels: list[str] = []
    views: list[str] = []
    several_labels: bool = False
    seed: int = 0
    split: _SplitFacts = _SplitFacts()
    versions: dict[str, str] = {}
    started: str = ""
    state: _State = _State()
    published_weights: bool = False
    weights_digest: str | None = None
    train_seconds: float | None = None


@dataclass(frozen=True)
class Run:
    """Folder of a training run.

    Files:
        recipe.toml: the resolved recipe.
        run.json: store and its digest, snippets, labels, views, split, seed, versions, state.
        split.csv: part of every snippet.
        metrics.csv: one row per epoch: phase, epoch, train_loss, val_loss, val_accuracy, …
        best.ckpt: the checkpoint that tests use: the best epoch by the recipe's monitor, or the last one of a refit.
        last.ckpt: the checkpoint to resume from.
        validated.ckpt: with a refit, the best epoch before it.
        epochs/NNNN.ckpt: with keep_epochs, the checkpoint of each epoch, counted from 1.
        start.ckpt: published weights that the training started from, until it is complete.
        tensorboard/: the same curves.

    A test adds predictions.npy, actuals.npy, logits.npy, probabilities.npy, confusion.npy, per_class.csv, samples.csv,
    subjects.csv, views.csv and test.json, and frames.csv for labels per time step. report.html is always written.

    Attributes:
        folder: Path of the folder.
    """

    folder: Path

    @classmethod
    def open(cls, folder: str | Path) -> Run:
        """Open an existing run.

        Args:
            folder: Folder of a run, or of a cross-validation with a final run.

        Returns:
            The run.

        Raises:
            UserError: If the folder is not that of a single run.
        """
        run = cls(Path(folder))
        if (run.folder / FUSION).is_file():
            raise UserError(
                f"{folder} is a fusion of several runs, but this command needs a single run. Name one of its runs: "
                f"{_fused_in(run.folder)}. 'actiontrain predict' (without --live), 'test' and 'compare' accept the fusion "
                "itself."
            )
        if not (run.folder / FACTS).is_file() and (run.folder / "folds.json").is_file():
            final = run.folder / FINAL
            if (final / FACTS).is_file():
                return cls(final)
            inner = min([*run.folder.glob("fold-*"), *run.folder.glob("split-*")], default=run.folder / "fold-01")
            raise UserError(
                f"{folder} contains one run per fold or stored split, and no final model. 'actiontrain test {folder}' "
                f"prints their joint result. Name one of them, such as {inner}, or train a model on all recordings: "
                f"'actiontrain fit --folds … --run {run.folder.name} --resume --final', or 'actiontrain fit --test 0'."
            )
        if not (run.folder / FACTS).is_file():
            raise UserError(f"{folder} is not a run: it has no {FACTS}. {_runs_beside(run.folder)}")
        return run

    @property
    def recipe(self) -> Recipe:
        """The resolved recipe."""
        path = self.folder / RECIPE
        return Recipe.whole_from_toml(_read(path), where=str(path)).as_recorded(str(path))

    @property
    def facts(self) -> dict[str, Any]:
        """The content of run.json."""
        path, advice = self.folder / FACTS, "Train again into another folder."
        facts = _read_table(path, advice)
        try:
            _Facts.model_validate(dict(facts))
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(map(str, first["loc"]))
            raise UserError(f"{path} is damaged: its '{name}' is {first['input']!r:.60}. {advice}") from None
        recorded = facts.pop(_CHECKSUM, None)  # runs of earlier versions have none
        if recorded not in (None, _checksum(facts)):
            raise UserError(
                f"{path} is damaged: its content does not match its checksum. Restore it from a copy. {advice}"
            )
        return facts

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their codes."""
        return tuple(self.facts["labels"])

    @property
    def store(self) -> str:
        """Path or URL of the store of the training, if the run may name it; see `may_name`.

        Raises:
            UserError: If the recorded store is elsewhere, with the option that names it.
        """
        recorded = self.recorded_store
        if may_name(self.folder, recorded):
            return recorded
        raise UserError(
            f"{self.folder / FACTS} names the store {recorded}, which is neither the store of the current study nor in the "
            "folder of the run's study, so it is not read. If it is yours, give it with --store, or work in its study."
        )

    @property
    def recorded_store(self) -> str:
        """Path or URL of the store in run.json: its current path if it moved with the study, else the recorded one."""
        from actionprep.datasets.store.npz_store import is_npz_folder

        facts = self.facts
        if "store_from_here" in facts:
            beside = placed(self.folder, facts["store_from_here"])
            if (beside / "zarr.json").is_file() or beside.is_file() or is_npz_folder(beside):
                return str(beside)
        return str(facts["store"])

    @property
    def is_complete(self) -> bool:
        """Whether the training finished."""
        return bool(self.facts["state"]["complete"])

    @property
    def best(self) -> Path:
        """The checkpoint that tests use."""
        return self.folder / BEST

    @property
    def last(self) -> Path:
        """The checkpoint that a training resumes from."""
        return self.folder / LAST

    @property
    def kept_epochs(self) -> list[int]:
        """Epochs with a kept checkpoint, counted from 1."""
        return sorted(int(path.stem) for path in (self.folder / EPOCHS).glob("*.ckpt") if path.stem.isdecimal())

    def epoch_checkpoint(self, epoch: int) -> Path:
        """Return the path of the kept checkpoint of an epoch, counted from 1."""
        return below(self.folder, EPOCHS) / f"{epoch:04d}.ckpt"

    @property
    def report(self) -> Path:
        """The report page."""
        return self.folder / REPORT

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """Rows of metrics.csv with parsed numbers; missing values are left out."""
        path = self.folder / METRICS
        if not path.exists():
            return []
        lines = list(csv.reader(_read(path).splitlines()))
        head = lines[0] if lines else []
        rows = []
        for number, cells in enumerate(lines[1:], 2):
            row = {key: _number(cell) for key, cell in zip(head, cells, strict=False) if cell != ""}
            if len(cells) != len(head) or not isinstance(row.get("phase"), str) or type(row.get("epoch")) is not int:
                raise UserError(
                    f"{path} is damaged: line {number} has {len(cells)} cells, expected {len(head)} with a phase and an "
                    "epoch. Delete that line and those after it, or train again into another folder."
                )
            rows.append(row)
        return rows

    @property
    def tested(self) -> dict[str, Any] | None:
        """The content of test.json; None before a test."""
        path = self.folder / TESTED
        if not path.exists():
            return None
        tested = _current_names(_read_table(path, self.how_to_test))
        if not isinstance(tested["metrics"], dict):
            raise UserError(f"{path} is damaged: its metrics are not a table. {self.how_to_test}")
        return tested

    @property
    def how_to_test(self) -> str:
        """Advice on how to write the files of a test again, as one sentence."""
        if (self.folder / FUSION).is_file():
            return "Fuse its runs again: actiontrain fuse RUN RUN …"
        if not (self.folder / FACTS).is_file() and (self.folder.parent / FACTS).is_file():
            return f"Test it again: actiontrain test {self.folder.parent} --part {self.folder.name}"
        return f"Test it again: actiontrain test {self.folder}"

    def change(self, **facts: Any) -> None:
        """Replace values in run.json atomically."""
        values = plain({**(self.facts if (self.folder / FACTS).exists() else {}), **facts})
        write_text(self.folder / FACTS, _json({**values, _CHECKSUM: _checksum(values)}))

    def write_metrics(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write metrics.csv with these rows."""
        columns = list(dict.fromkeys(key for row in rows for key in row))
        lines = [",".join(columns)]
        lines += [",".join(_cell(row.get(column, "")) for column in columns) for row in rows]
        write_text(self.folder / METRICS, "\n".join(lines) + "\n")

    def write_table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> Path:
        """Write a csv table with the keys of its first row as columns."""
        import io

        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, list(rows[0]) if rows else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
        path = self.folder / name
        write_text(path, buffer.getvalue())
        return path

    def write_array(self, name: str, values: np.ndarray) -> None:
        """Write one npy file."""
        import numpy as np

        with _explained(self.folder / name):
            self.folder.mkdir(parents=True, exist_ok=True)
            np.save(no_link(self.folder / name), values, allow_pickle=False)

    def write_json(self, name: str, values: Any) -> None:
        """Write one JSON file."""
        write_text(self.folder / name, _json(values))


def validation_sentence(run: Run) -> str | None:
    """Describe the validation of the chosen epoch; None if nothing was validated."""
    monitor = run.recipe.monitor
    rows = _validated(run)
    if not rows:
        return None
    best = _best_of(run, rows)
    measured = monitor in best
    what = "exact match" if run.facts["several_labels"] else "accuracy"
    by = f" by {monitor.removeprefix('val_').replace('_', ' ')}" if measured else ""
    which = "the only validated epoch"
    if len(rows) > 1:
        which = f"the {'best' if measured else 'last'} of {len(rows)} validated epochs{by}"
    return (
        f"Validation: {what} {best['val_accuracy']:.3f}, macro F1 {best['val_macro_f1']:.3f}, loss {best['val_loss']:.3f} "
        f"in epoch {best['epoch'] + 1}, {which}"
        + (", before the refit on train and val." if (run.folder / VALIDATED).exists() else ".")
    )


def early_best_warning(run: Run) -> str | None:
    """Describe a best epoch at the very start of the validation; None if it is later, or if few epochs were validated."""
    rows = _validated(run)
    if len(rows) < _FEW_EPOCHS:
        return None
    best = _best_of(run, rows)
    position = rows.index(best) + 1
    if run.recipe.monitor not in best or position > max(1, len(rows) // 20):
        return None
    return (
        f"Warning: the best epoch is {best['epoch'] + 1} of {len(rows)}. Validation did not improve after it, so the "
        "model probably does not generalize to other recordings. Check labels and split, lower the learning rate "
        "(--set optimizer.learning_rate=…), or add recordings."
    )


_FEW_EPOCHS = 10
"""With fewer validated epochs, an early best epoch means nothing."""


def _validated(run: Run) -> list[dict[str, Any]]:
    return [row for row in run.metrics if row["phase"] == "validate" and "val_accuracy" in row]


def _best_of(run: Run, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The row that the recipe chooses; the last one if no row has the metric."""
    monitor = run.recipe.monitor
    measured = [row for row in rows if monitor in row]
    better = min if monitor == "val_loss" else max
    return better(measured, key=lambda row: row[monitor]) if measured else rows[-1]


def source_from(folder: Path, target: Path) -> str:
    """Return the path that a file in `folder` records for another file or folder.

    It is relative if both are in one study, or, outside of studies, if the target is below the parent of `folder`: then
    they can be moved together. Otherwise it is absolute.

    Args:
        folder: Folder of the file that records the path.
        target: File or folder to name.

    Returns:
        Relative path with forward slashes, or absolute path.
    """
    from actionprep.datasets.study import find_study

    folder, target = folder.resolve(), target.resolve()
    try:
        root = find_study(folder).root.resolve()
    except UserError:
        root = folder.parent
    return Path(os.path.relpath(target, folder)).as_posix() if target.is_relative_to(root) else str(target)


def placed(folder: Path, recorded: str) -> Path:
    """Resolve a path that a file in `folder` records.

    Args:
        folder: Folder of the file that records the path.
        recorded: Path as `source_from` writes it.

    Returns:
        Absolute path without links.

    Raises:
        UserError: If the text is not a valid path.
    """
    too_long = len(os.fsencode(recorded)) > MAX_NAMES_BYTES or any(
        len(os.fsencode(part)) > MAX_NAME_BYTES for part in recorded.split("/")
    )
    if "\0" in recorded or too_long:
        why = "it is too long" if too_long else "it has a NUL character"
        raise UserError(f"A file in {folder} names the invalid path {recorded!r:.80}: {why}. Correct it there.")
    return Path(os.path.realpath(folder.resolve() / recorded))


_LEVELS = 6
"""Outside of a study, a run may name stores and runs below this many of its parent folders."""


def may_name(folder: Path, recorded: str) -> bool:
    """Whether a file in the folder of a run may make the program read a path.

    Run folders can come from others, so they may only name the store of the current study, and what is in the folder of the
    study that contains them. Outside of studies they may name what is below one of their six parent folders, except the
    home folder and the root.

    Args:
        folder: Folder with the file.
        recorded: Path or URL that the file names.
    """
    from actionprep.datasets.study import find_study

    try:
        current: str | None = str(find_study().store)
    except UserError:
        current = None
    if "://" in recorded or "::" in recorded:
        return recorded == current
    path = Path(os.path.realpath(recorded))
    if current is not None and path == Path(os.path.realpath(current)):
        return True
    folder = folder.resolve()
    try:
        return path.is_relative_to(find_study(folder).root.resolve())
    except UserError:
        home = Path(os.path.expanduser("~")).resolve()
        parents = [parent for parent in list(folder.parents)[:_LEVELS] if len(parent.parts) > 1 and parent != home]
        return any(path.is_relative_to(parent) for parent in parents)


def _fused_in(folder: Path) -> str:
    """List the runs that a fusion names."""
    try:
        return ", ".join(str(placed(folder, name)) for name in json.loads(_read(folder / FUSION))["runs"])
    except (ValueError, KeyError, TypeError):
        return f"those that {FUSION} in it lists"


def _runs_beside(folder: Path, limit: int = 12) -> str:
    """List the runs next to a folder that is not a run, latest first, or describe how to make one."""
    paths = sorted(folder.parent.glob(f"*/{FACTS}"), key=lambda path: path.stat().st_mtime, reverse=True)
    names = [path.parent.name for path in paths]
    if not names:
        return "'actiontrain fit' writes runs to the folder runs of a study."
    return f"{folder.parent} has the runs {name_list(names, limit)}.{nearest(folder.name, names)}"


@contextlib.contextmanager
def claimed_folder(runs: Path, name: str) -> Iterator[Path]:
    """Create a new folder below `runs`: `name`, or name-2, name-3, … if it exists. It is removed again if left empty.

    If several processes claim a name at the same time, each gets its own folder.

    Args:
        runs: Folder of the runs.
        name: Requested name.

    Yields:
        Path of the folder.
    """
    folder, number = below(runs, name), 1
    with _explained(folder):
        runs.mkdir(parents=True, exist_ok=True)
        while True:
            try:
                folder.mkdir()
                break
            except FileExistsError:
                number += 1
                folder = runs / f"{name}-{number}"
    try:
        yield folder
    finally:
        with contextlib.suppress(OSError):  # not empty: keep it
            folder.rmdir()


def versions(recipe: Recipe | None = None) -> dict[str, str]:
    """Return the versions that the metrics of a run depend on.

    Args:
        recipe: Recipe of the run. Packages that its model and inputs come from are added.

    Returns:
        Version by package.
    """
    return {**_own_versions(), **({} if recipe is None else _plugin_versions(recipe))}


@functools.cache
def _own_versions() -> dict[str, str]:
    """Versions of Python and of the packages that every run depends on; looked up once per process."""
    by_package = {"python": platform.python_version()}
    for package in _VERSIONS:
        try:
            by_package[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            if package == "actionprep":
                import actionprep

                by_package[package] = getattr(actionprep, "__version__", "not installed")
    return by_package


def _plugin_versions(recipe: Recipe) -> dict[str, str]:
    """Versions of the packages that declare the models and inputs of a recipe, with those of its parts."""
    from actionprep.training.inputs.base import INPUTS
    from actionprep.training.models.registry import MODELS

    tables = recipe.to_tables()
    parts = [tables, *tables["input"].get("parts", {}).values()]
    kinds = ((MODELS, "model"), (INPUTS, "product"))
    entries = [kind.entries().get(str(part["recipe"].get(key))) for part in parts for kind, key in kinds]
    return {entry.package: entry.version for entry in entries if entry is not None and entry.package}


def pipeline_of(store: Store, product: str) -> dict[str, Any]:
    """Describe how the input of a model was made, from the provenance of its product.

    A stage has several entries if its items were made with different settings or versions.

    Args:
        store: Store with the product.
        product: Name of the product, or several joined by "+".

    Returns:
        The product; `stages` with version, settings and identity of every stage behind it; `clocks` with how the views of
        the study are aligned.
    """
    return {"product": product, "stages": _stages_behind(store, product), "clocks": _clocks_of(store)}


def _stages_behind(store: Store, product: str) -> dict[str, list[dict[str, Any]]]:
    """Version, settings and identity of every stage behind a product, inputs last."""
    stages: dict[str, list[dict[str, Any]]] = {}
    waiting = product.split("+")
    while waiting:
        name = waiting.pop(0)
        entries: list[dict[str, Any]] = stages.setdefault(name, [])
        for item in store.items(name):
            made = (store.metadata(item) or {}).get("provenance", {})
            entry = {key: made[key] for key in ("version", "settings", "identity") if key in made}
            if entry not in entries:
                entries.append(entry)
            waiting += [name for name in made.get("inputs", {}) if name not in stages and name not in waiting]
    return stages


def _clocks_of(store: Store) -> dict[str, Any]:
    """Describe how the views of the store's study are aligned, for other recordings by the same cameras.

    Returns:
        `tolerance`, `clock` and `allow_misaligned` of the study, and `offsets` in seconds for each view with an offset
        that is not 0 and is the same in all recordings, to a millisecond. Empty for a store without its study.
    """
    from actionprep.datasets.catalog import Catalog
    from actionprep.datasets.study import find_study

    if store.path is None:
        return {}
    try:
        folder = find_study(store.path)
        study = folder.study
        if Path(folder.store).resolve() != store.path.resolve() or not folder.catalog.is_dir():
            return {}
        views = Catalog.read(folder.catalog).views
    except UserError:
        return {}
    offsets: dict[str, set[float]] = {}
    for view in views:
        given = view.offset - view.time_of_first_frame(study.clock)
        offsets.setdefault(view.id, set()).add(round(given, 3))
    return {
        "tolerance": study.tolerance,
        "clock": study.clock,
        "allow_misaligned": study.allow_misaligned,
        "offsets": {
            view: values.pop() for view, values in sorted(offsets.items()) if len(values) == 1 and values != {0.0}
        },
    }


def mixed_inputs(store: Store, product: str, views: Sequence[str]) -> list[str]:
    """Return one sentence per stage behind a product that made items of these views with different settings or versions."""
    sentences = []
    for name in _stages_behind(store, product):
        keys = [key for key in store.items(name) if key.view in views]
        differing = difference(made_alike(provenance_of(store, keys)))
        if differing:
            sentences.append(
                f"Items of '{name}' were made with different settings: {differing}. See 'actionprep status'."
            )
    return sentences


def input_digest(store: Store, product: str, snippets: str) -> str:
    """Hash what a training reads: the items of its product and its table of snippets."""
    keys = [*store.items(product), *(key for key in store.items("snippets") if key.recording == snippets)]
    digests = [[key.path, (store.metadata(key) or {}).get("digest")] for key in keys]
    return hashlib.sha256(canonical_json(digests).encode()).hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write a file atomically: readers see the old text or the new text."""
    with _explained(path):
        atomic_files.write_text(path, text)


def keep_file(source: Path, target: Path) -> None:
    """Copy a file atomically, as a hard link if the disk supports it: replace both files, never write into them."""
    with _explained(target), atomic_file(target, fixed=True) as draft:
        draft.unlink(missing_ok=True)
        try:
            os.link(source, draft)
        except OSError:
            shutil.copyfile(source, draft)


def now() -> str:
    """Return the current date and time, for run.json."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


class _Table(dict[str, Any]):
    """A table of a JSON file. A missing key raises a UserError with the file and what to do."""

    def __init__(self, values: Mapping[str, Any], path: Path, advice: str) -> None:
        super().__init__(values)
        self.path, self.advice = path, advice

    def __missing__(self, key: str) -> Any:
        raise UserError(f"{self.path} is damaged: the key '{key}' is missing. {self.advice}")


def _read_table(path: Path, advice: str) -> dict[str, Any]:
    """Read the table in a JSON file; a damaged file or a missing key raises a UserError with the advice."""
    try:
        content = json.loads(_read(path), object_hook=lambda values: _Table(values, path, advice))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged: {error}. {advice}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged: it does not contain a table. {advice}")
    return content


_OLD_NAMES = {"figures": "metrics", "figures_at_thresholds": "metrics_at_thresholds"}


def _current_names(tested: dict[str, Any]) -> dict[str, Any]:
    """Rename the keys that earlier versions wrote to test.json."""
    for table in (tested, tested.get("frames")):
        if isinstance(table, dict):
            for old, name in _OLD_NAMES.items():
                if old in table:
                    table[name] = table.pop(old)
    return tested


class _explained:
    """Turn disk errors into a SetupError that names the file and what to do."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, OSError):
            raise SetupError(
                f"Cannot write {self.path}: {error.strerror or error}. Free some disk space, or name another run folder."
            ) from error


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Cannot read {path}: {error}.") from None


def _json(value: Any) -> str:
    return json.dumps(plain(value), indent=2, ensure_ascii=False) + "\n"


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "" if value != value else repr(value)
    return str(value)


def _number(text: str) -> Any:
    try:
        return int(text)
    except ValueError:
        try:
            return float(text)
        except ValueError:
            return text
