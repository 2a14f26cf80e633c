"""The folder of one training: what was asked for, what came out, and the checkpoints."""

from __future__ import annotations

import contextlib
import csv
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

from actionprep.datasets.paths import MAX_NAME_BYTES, MAX_NAMES_BYTES, below, no_link
from actionprep.datasets.store.provenance import difference, made_alike, provenance_of
from actionprep.errors import SetupError, UserError, discard, name_list, nearest
from actionprep.json_values import plain
from actionprep.settings import canonical_json
from actionprep.training.recipes import Recipe

if TYPE_CHECKING:
    import numpy as np

    from actionprep.datasets.store.zarr_store import Store

Phase = Literal["validate", "refit"]
"""Phases of a training: on train with val beside it; then, where the recipe says so, on both together."""

RECIPE, FACTS, SPLIT, METRICS = "recipe.toml", "run.json", "split.csv", "metrics.csv"
BEST, LAST, VALIDATED, START = "best.ckpt", "last.ckpt", "validated.ckpt", "start.ckpt"
REPORT, TESTED = "report.html", "test.json"
FUSION = "fusion.json"
"""In a folder that 'actiontrain fuse' wrote, instead of run.json: the runs and their weights."""
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
    as_read = json.loads(json.dumps(facts))  # where all keys are texts
    return hashlib.sha256(json.dumps(as_read, sort_keys=True).encode()).hexdigest()


class _State(BaseModel, strict=True):
    phase: Phase = "validate"
    complete: bool = False


class _Facts(BaseModel, strict=True):
    """What the values of run.json are, where they are there: runs of earlier versions lack some."""

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
    """A training's folder.

    recipe.toml     the resolved recipe
    run.json        store and its digest, snippets, labels, views, split, seed, versions, state
    split.csv       part of every snippet
    metrics.csv     a row an epoch: phase, epoch, train_loss, val_loss, val_accuracy, …
    best.ckpt       what tests use: the best epoch by the recipe's figure, or the refit's last; last.ckpt resumes
    validated.ckpt  with a refit, the best epoch before it
    start.ckpt      published weights that the training began from, until it is complete
    tensorboard/    the same curves
    After a test: predictions.npy, actuals.npy, logits.npy, probabilities.npy, confusion.npy, per_class.csv,
    samples.csv, subjects.csv, views.csv, test.json, with labels of every instant frames.csv; report.html in any case.
    """

    folder: Path

    @classmethod
    def open(cls, folder: str | Path) -> Run:
        """An existing run; raises UserError when the folder is none."""
        run = cls(Path(folder))
        if (run.folder / FUSION).is_file():
            raise UserError(
                f"{folder} is a fusion of several runs, and this works on one run. Name one of its runs: "
                f"{_fused_in(run.folder)}. 'actiontrain predict' (without --live), 'test' and 'compare' take the fusion "
                "itself."
            )
        if not (run.folder / FACTS).is_file() and (run.folder / "folds.json").is_file():
            inner = min([*run.folder.glob("fold-*"), *run.folder.glob("split-*")], default=run.folder / "fold-01")
            raise UserError(f"{folder} holds one run a fold or stored split. Name one of them, such as {inner}.")
        if not (run.folder / FACTS).is_file():
            raise UserError(f"{folder} is no run: it has no {FACTS}. {_runs_beside(run.folder)}")
        return run

    @property
    def recipe(self) -> Recipe:
        """The recipe as it was resolved."""
        path = self.folder / RECIPE
        return Recipe.whole_from_toml(_read(path), where=str(path)).as_recorded(str(path))

    @property
    def facts(self) -> dict[str, Any]:
        """What run.json holds."""
        path, advice = self.folder / FACTS, "Train again into another folder."
        found = _read_table(path, advice)
        try:
            _Facts.model_validate(dict(found))
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(map(str, first["loc"]))
            raise UserError(f"{path} is damaged: its '{name}' is {first['input']!r:.60}. {advice}") from None
        recorded = found.pop(_CHECKSUM, None)  # runs of earlier versions have none
        if recorded not in (None, _checksum(found)):
            raise UserError(
                f"{path} is damaged: its content does not match its checksum. Restore it from a copy. {advice}"
            )
        return found

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their codes."""
        return tuple(self.facts["labels"])

    @property
    def store(self) -> str:
        """Path or URL of the store of the training: where it lies in the run's study now, else where it was then."""
        facts = self.facts
        if "store_from_here" in facts:
            beside = placed(self.folder, facts["store_from_here"])
            if (beside / "zarr.json").is_file():
                return str(beside)
        return str(facts["store"])

    @property
    def is_complete(self) -> bool:
        """Whether the training went to its end."""
        return bool(self.facts["state"]["complete"])

    @property
    def best(self) -> Path:
        """The checkpoint that tests use."""
        return self.folder / BEST

    @property
    def last(self) -> Path:
        """The checkpoint that a resumed training goes on from."""
        return self.folder / LAST

    @property
    def report(self) -> Path:
        """The report page."""
        return self.folder / REPORT

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """Rows of metrics.csv, numbers as numbers; missing figures are left out."""
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
        """What test.json holds; None before a test."""
        path = self.folder / TESTED
        if not path.exists():
            return None
        tested = _current_names(_read_table(path, self.how_to_test))
        if not isinstance(tested["metrics"], dict):
            raise UserError(f"{path} is damaged: its metrics are no table. {self.how_to_test}")
        return tested

    @property
    def how_to_test(self) -> str:
        """A sentence that says how the files of a test are made anew."""
        if (self.folder / FUSION).is_file():
            return "Fuse its runs anew: actiontrain fuse RUN RUN …"
        if not (self.folder / FACTS).is_file() and (self.folder.parent / FACTS).is_file():
            return f"Test it again: actiontrain test {self.folder.parent} --part {self.folder.name}"
        return f"Test it again: actiontrain test {self.folder}"

    def change(self, **facts: Any) -> None:
        """Replace some of run.json, at once or not at all."""
        values = plain({**(self.facts if (self.folder / FACTS).exists() else {}), **facts})
        write_text(self.folder / FACTS, _json({**values, _CHECKSUM: _checksum(values)}))

    def write_metrics(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write metrics.csv anew."""
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
    """What validation gave in the epoch that was chosen; None where nothing was validated."""
    monitor = run.recipe.monitor
    rows = [row for row in run.metrics if row["phase"] == "validate" and "val_accuracy" in row]
    numbers = [row for row in rows if monitor in row]
    if not rows:
        return None
    better = min if monitor == "val_loss" else max
    best = better(numbers, key=lambda row: row[monitor]) if numbers else rows[-1]
    what = "exact match" if run.facts["several_labels"] else "accuracy"
    why = f"the best by {monitor.removeprefix('val_').replace('_', ' ')}" if numbers else "the last"
    return (
        f"Validation: {what} {best['val_accuracy']:.3f}, macro F1 {best['val_macro_f1']:.3f}, loss {best['val_loss']:.3f} "
        f"in epoch {best['epoch'] + 1}, {why} of {len(rows)} that were validated"
        + (", before the refit on train and val." if (run.folder / VALIDATED).exists() else ".")
    )


def source_from(folder: Path, target: Path) -> str:
    """How a file in `folder` names another place: from here, where both lie in one study, so that it may move.

    Outside of studies that is so for what lies beside the folder. Other places have their whole path.
    """
    from actionprep.datasets.study import find_study

    folder, target = folder.resolve(), target.resolve()
    try:
        root = find_study(folder).root.resolve()
    except UserError:
        root = folder.parent
    return Path(os.path.relpath(target, folder)).as_posix() if target.is_relative_to(root) else str(target)


def placed(folder: Path, said: str) -> Path:
    """The place that a file in `folder` names so; raises UserError for a text that no path can be."""
    too_long = len(os.fsencode(said)) > MAX_NAMES_BYTES or any(
        len(os.fsencode(part)) > MAX_NAME_BYTES for part in said.split("/")
    )
    if "\0" in said or too_long:
        why = "it is too long" if too_long else "it has a NUL character"
        raise UserError(f"A file in {folder} names the path {said!r:.80}, which cannot be: {why}. Correct it there.")
    return Path(os.path.realpath(folder.resolve() / said))


def _fused_in(folder: Path) -> str:
    """The runs that a fusion's file names."""
    try:
        return ", ".join(str(placed(folder, one)) for one in json.loads(_read(folder / FUSION))["runs"])
    except (ValueError, KeyError, TypeError):
        return f"those that {FUSION} in it lists"


def _runs_beside(folder: Path, limit: int = 12) -> str:
    """What runs lie beside a folder that is none, the last one first; or how to make some."""
    found = sorted(folder.parent.glob(f"*/{FACTS}"), key=lambda path: path.stat().st_mtime, reverse=True)
    names = [path.parent.name for path in found]
    if not names:
        return "Runs are made by 'actiontrain fit', in the folder runs of a study."
    return f"{folder.parent} has the runs {name_list(names, limit)}.{nearest(folder.name, names)}"


@contextlib.contextmanager
def claimed_folder(runs: Path, name: str) -> Iterator[Path]:
    """A new folder of that name below `runs`, or of name-2, name-3, … where others have it; gone again if left empty.

    Of several processes that claim one name at once, each gets a folder of its own.
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
        with contextlib.suppress(OSError):  # something is in it, as should be
            folder.rmdir()


def versions(recipe: Recipe | None = None) -> dict[str, str]:
    """Return the versions that the metrics of a run depend on.

    Args:
        recipe: Recipe of the run. Packages that its model and inputs come from are added.

    Returns:
        Version by package.
    """
    found = {"python": platform.python_version()}
    for package in _VERSIONS:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            if package == "actionprep":
                import actionprep

                found[package] = getattr(actionprep, "__version__", "not installed")
    return found if recipe is None else {**found, **_plugin_versions(recipe)}


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
    """How the input of a model was made: settings and version of every stage behind a product, from its provenance.

    Stages whose items were made with several settings are listed with each, so that a difference is seen.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    waiting = product.split("+")
    while waiting:
        name = waiting.pop(0)
        entries: list[dict[str, Any]] = found.setdefault(name, [])
        for item in store.items(name):
            made = (store.metadata(item) or {}).get("provenance", {})
            entry = {key: made[key] for key in ("version", "settings", "identity") if key in made}
            if entry not in entries:
                entries.append(entry)
            waiting += [one for one in made.get("inputs", {}) if one not in found and one not in waiting]
    return {"product": product, "stages": found, "clocks": _clocks_of(store)}


def _clocks_of(store: Store) -> dict[str, Any]:
    """How the views of the store's study are held against each other, for other recordings by the same cameras.

    tolerance, clock and allow_misaligned of the study; offsets: of each view whose offset (s) is the same, to a
    millisecond, in all recordings and not 0. Empty for a store without its study.
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
        "offsets": {view: found.pop() for view, found in sorted(offsets.items()) if len(found) == 1 and found != {0.0}},
    }


def mixtures(store: Store, product: str, views: Sequence[str]) -> list[str]:
    """For each stage behind a product, a sentence when its items of these views were not all made alike."""
    sentences = []
    for name in pipeline_of(store, product)["stages"]:
        keys = [key for key in store.items(name) if key.view in views]
        found = difference(made_alike(provenance_of(store, keys)))
        if found:
            sentences.append(f"Items of '{name}' were not all made alike: {found}. See 'actionprep status'.")
    return sentences


def input_digest(store: Store, product: str, snippets: str) -> str:
    """One hash of what a training reads: the items of its product and its table of snippets."""
    keys = [*store.items(product), *(key for key in store.items("snippets") if key.recording == snippets)]
    found = [[key.path, (store.metadata(key) or {}).get("digest")] for key in keys]
    return hashlib.sha256(canonical_json(found).encode()).hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write a file at once: a reader sees the old text or the new one."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with _explained(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            no_link(draft).write_text(text, encoding="utf-8")
            os.replace(draft, path)
        finally:
            discard(draft)


def keep_file(source: Path, target: Path) -> None:
    """Make target hold what source holds now, at once; by a link where the disk can, so both may only be replaced."""
    draft = target.with_name(f".{target.name}.draft")
    with _explained(target):
        try:
            draft.unlink(missing_ok=True)
            try:
                os.link(source, draft)
            except OSError:
                shutil.copyfile(source, draft)
            os.replace(draft, target)
        finally:
            discard(draft)


def now() -> str:
    """Date and time, for run.json."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


class _Table(dict[str, Any]):
    """A table of a JSON file, which says of what file and what to do when something is asked for that it lacks."""

    def __init__(self, values: Mapping[str, Any], path: Path, advice: str) -> None:
        super().__init__(values)
        self.path, self.advice = path, advice

    def __missing__(self, key: str) -> Any:
        raise UserError(f"{self.path} is damaged: it has no '{key}' where one should be. {self.advice}")


def _read_table(path: Path, advice: str) -> dict[str, Any]:
    """The table in a JSON file; raises UserError with what to do where it is damaged, or when what it lacks is asked for."""
    try:
        found = json.loads(_read(path), object_hook=lambda values: _Table(values, path, advice))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged: {error}. {advice}") from None
    if not isinstance(found, dict):
        raise UserError(f"{path} is damaged: it holds no table. {advice}")
    return found


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
    """Disk errors as what they mean for the user."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, OSError):
            raise SetupError(
                f"Cannot write {self.path}: {error.strerror or error}. Free some room, or name another run folder."
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
