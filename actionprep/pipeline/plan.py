"""What would run, and why: every wanted item held against what the store has, from metadata alone."""

from __future__ import annotations

import hashlib
import platform
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from actionprep.datasets.store.provenance import difference, made_alike, provenance_of
from actionprep.datasets.store.reader import DamagedItemError
from actionprep.datasets.store.zarr_store import ItemKey, Store
from actionprep.errors import READ_ERROR, InputError, UserError, explained_read_errors
from actionprep.pipeline.index import STAGES, find_stage
from actionprep.pipeline.quarantine import NO_FILE, Quarantine
from actionprep.pipeline.stage import ArrayStage, Stage, ViewSource
from actionprep.settings import Recorded, StageSettings, canonical_json, read_recorded

if TYPE_CHECKING:
    from actionprep.datasets.catalog import Catalog
    from actionprep.datasets.recordings import View


Action = Literal["build", "done", "quarantined", "blocked"]


@dataclass(frozen=True)
class PlannedItem:
    """One item and what is to become of it.

    why:      one phrase for people: "new", "settings changed: grid", "source changed", …
    settings: those that it is, or will be, made with.
    nbytes:   estimate for an item to build, fact for one that is done.
    """

    key: ItemKey
    action: Action
    why: str
    fingerprint: str
    settings: StageSettings
    provenance: dict[str, Any]
    nbytes: int = 0


@dataclass(frozen=True)
class ViewTask:
    """All that is to be made for one view, in dependency order."""

    source: ViewSource
    items: tuple[PlannedItem, ...]

    @property
    def num_frames(self) -> int:
        """Frames to decode; 0 when no stage needs frames."""
        needs = any(find_stage(item.key.product).reads_frames(item.settings) for item in self.items)
        return self.source.num_frames if needs else 0


@dataclass(frozen=True)
class Plan:
    """The items of all wanted stages and their inputs, and the tasks that will make the missing ones.

    notes: a sentence for each item whose metadata is damaged, with the settings that it is rebuilt with.
    """

    items: tuple[PlannedItem, ...]
    view_tasks: tuple[ViewTask, ...]
    study_stages: tuple[tuple[str, StageSettings], ...]
    skipped: tuple[str, ...] = ()
    forced: frozenset[ItemKey] = frozenset()
    notes: tuple[str, ...] = ()

    def count(self, action: Action) -> int:
        """Number of items with that action."""
        return sum(item.action == action for item in self.items)

    def by_stage(self) -> dict[str, dict[str, int]]:
        """Counts of actions and bytes for each stage, in order."""
        table: dict[str, dict[str, int]] = {}
        for item in self.items:
            row = table.setdefault(
                item.key.product, {"build": 0, "done": 0, "quarantined": 0, "blocked": 0, "nbytes": 0}
            )
            row[item.action] += 1
            row["nbytes"] += item.nbytes if item.action == "build" else 0
        return table


class IntactSettings:
    """Settings of the intact items of a product, for an item with a damaged record of its settings."""

    def __init__(self, store: Store | None) -> None:
        """store: with the items."""
        self._store = store
        self._found: dict[str, tuple[Recorded[StageSettings] | None, str]] = {}

    def of(self, stage: type[Stage], own: StageSettings) -> tuple[Recorded[StageSettings] | None, str]:
        """Settings to rebuild an item with.

        Args:
            stage: Stage of the item.
            own: The user's own settings. What intact items record never replaces code or files in them.

        Returns:
            The settings that all intact items of the product share, or None if `own` is to be used, and a phrase that
            names them.
        """
        if stage.name not in self._found:
            self._found[stage.name] = self._agreed(stage, own)
        return self._found[stage.name]

    def _agreed(self, stage: type[Stage], own: StageSettings) -> tuple[Recorded[StageSettings] | None, str]:
        keys = [] if self._store is None else self._store.intact(self._store.items(stage.name))
        made = [] if self._store is None else [self._store.metadata(key) or {} for key in keys]
        alike = {canonical_json([one["provenance"].get(name) for name in ("version", "settings")]) for one in made}
        recorded = _as_made(stage, made[0], own) if len(alike) == 1 else None
        if recorded is None:
            return None, "the settings of actionprep.toml"
        which = "only intact item" if len(made) == 1 else f"{len(made)} intact items"
        return recorded, f"the settings of the {which} of '{stage.name}'"


def make_plan(
    catalog: Catalog,
    store: Store | None,
    *,
    wanted: Iterable[str],
    settings: Mapping[str, StageSettings],
    views: Iterable[View],
    quarantine: Quarantine,
    root: str = "",
    enforce: bool = False,
    retry: bool = False,
    skipped: tuple[str, ...] = (),
    force: frozenset[ItemKey] = frozenset(),
    warn: Callable[[str], None] = lambda sentence: None,
    intact: IntactSettings | None = None,
) -> Plan:
    """Hold every wanted item, and every item that it reads, against the store.

    wanted:   stages asked for by name. settings: of every stage.
    enforce:  inputs that are in the store with other settings than these are made anew; otherwise they are taken as
        they are, since somebody made them so on purpose.
    warn:     called with a sentence for recorded settings that are ignored because data must not name code or files,
        and for code or weights that have changed.
    retry:    quarantined items are tried again. force: items to make anew, with the settings that they were made with.
    intact: where settings come from for items whose record of them is damaged; looked up in the store when None.

    Raises SetupError when a backend that is needed is missing.
    """
    wanted = list(wanted)
    order = dependency_order(wanted, settings)
    identities: dict[str, dict[str, str]] = {}

    def identity(stage: type[Stage], chosen: StageSettings) -> dict[str, str]:
        known = canonical_json([stage.name, chosen.model_dump(mode="json")])
        if known not in identities:
            identities[known] = {**stage.identity(chosen), **STAGES.origin(stage.name)}
        return identities[known]

    intact = intact or IntactSettings(store)
    items: list[PlannedItem] = []
    tasks: list[ViewTask] = []
    notes: list[str] = []
    per_view = [name for name in order if not issubclass(find_stage(name), ArrayStage)]
    for view in sorted(views, key=lambda one: (one.recording, one.id)):
        source = view_source(catalog, view, root)
        found: dict[str, PlannedItem] = {}
        for name in per_view:
            stage = find_stage(name)
            chosen = settings[name]
            key = ItemKey(name, view.recording, view.id)
            committed, damage = _committed(store, key)
            named = "the settings of this command" if name in wanted else "the settings of actionprep.toml"
            made = None
            if key in force or (name not in wanted and not enforce):
                if damage:
                    made, named = intact.of(stage, chosen)
                elif committed is not None:
                    made = _as_made(stage, committed, chosen)
            if made is not None:
                chosen = made.settings.at(Path(root))
                for one in made.ignored:
                    warn(str(one))
            inputs = {one.product: found[one.product] for one in stage.inputs(chosen)}
            if made is not None and made.ignored and committed is not None and key not in force:
                kept = _kept_item(stage, key, chosen, made, identity, view, source, inputs, committed)
                if kept is not None:
                    found[name] = kept
                    continue
            if made is not None:
                made.require()
            found[name] = _planned_item(
                stage, key, chosen, identity, view, source, inputs, committed, quarantine, retry=retry
            )
            if key in force and found[name].action == "done":
                found[name] = replace(found[name], action="build", why="damaged")
            if made is not None and committed is not None and found[name].action == "build":
                recorded = committed["provenance"].get("identity", {})
                for sentence in other_content(name, recorded, found[name].provenance["identity"]):
                    warn(sentence)
            if damage and found[name].action == "build":
                found[name] = replace(found[name], why="damaged")
                notes.append(f"{damage} It is rebuilt with {named}.")
        items.extend(found.values())
        to_build = tuple(item for item in found.values() if item.action == "build")
        if to_build:
            tasks.append(ViewTask(source, to_build))
    study_stages = tuple((name, settings[name]) for name in order if issubclass(find_stage(name), ArrayStage))
    for name, chosen in study_stages:
        item = plan_study_item(catalog, store, name, chosen, force=force)
        items.append(item)
        if item.why == "damaged" and (damage := _committed(store, item.key)[1]):
            notes.append(f"{damage} It is rebuilt with the settings of this command or of actionprep.toml.")
    return Plan(tuple(items), tuple(tasks), study_stages, skipped, force, tuple(notes))


def mixtures(plan: Plan, store: Store) -> list[str]:
    """For each product of views, a sentence when not all of its items will have been made alike, once the plan is done."""
    made = {item.key: item.provenance for item in plan.items if item.key.view and item.action in ("build", "done")}
    sentences = []
    for product in dict.fromkeys(key.product for key in made):
        others = store.intact(key for key in store.items(product) if key not in made)
        of_product = {key: one for key, one in made.items() if key.product == product}
        found = difference(made_alike({**provenance_of(store, others), **of_product}))
        if found:
            sentences.append(f"Items of '{product}' are not all made alike: {found}.")
    return sentences


def plan_study_item(
    catalog: Catalog,
    store: Store | None,
    name: str,
    chosen: StageSettings,
    *,
    force: frozenset[ItemKey] = frozenset(),
) -> PlannedItem:
    """What is to become of a product of the whole study."""
    stage = find_stage(name)
    assert issubclass(stage, ArrayStage)
    key = ItemKey(name, str(getattr(chosen, "name", "default")))
    facts = {
        "stage": name,
        "version": stage.version,
        "settings": chosen.model_dump(mode="json"),
        "reads": stage.depends_on(chosen, catalog),
    }
    origin = STAGES.origin(name)
    if origin:
        facts["identity"] = origin
    fingerprint = hashlib.sha256(canonical_json(facts).encode()).hexdigest()
    committed, damage = _committed(store, key)
    done = committed is not None and committed["fingerprint"] == fingerprint and key not in force
    provenance = {"stage": name, "version": stage.version, "settings": facts["settings"], **_software()}
    if origin:
        provenance["identity"] = origin
    why = (
        ""
        if done
        else "damaged"
        if damage or key in force
        else "new"
        if committed is None
        else _what_changed(committed, chosen.model_dump(mode="json"), stage.version)
    )
    nbytes = int(committed["nbytes"]) if done and committed is not None else 0
    return PlannedItem(key, "done" if done else "build", why, fingerprint, chosen, provenance, nbytes)


def dependency_order(wanted: Iterable[str], settings: Mapping[str, StageSettings]) -> list[str]:
    """The wanted stages and all that they read, inputs first."""
    order: list[str] = []

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            raise UserError(f"Stages read each other in a circle: {' → '.join((*path, name))}.")
        if name in order:
            return
        for one in find_stage(name).inputs(settings[name]):
            visit(one.product, (*path, name))
        order.append(name)

    for name in wanted:
        visit(name, ())
    return order


def view_source(catalog: Catalog, view: View, root: str) -> ViewSource:
    """What stages are told of a view."""
    segments = tuple(catalog.segments_of(view.recording))
    return ViewSource(
        recording=view.recording,
        view=view.id,
        path=str(catalog.resolve(view.path, root)),
        height=view.height,
        width=view.width,
        fps=view.fps,
        times=view.times,
        segments=segments,
        root=root,
        poses=view.poses,
    )


def _planned_item(
    stage: type[Stage],
    key: ItemKey,
    chosen: StageSettings,
    identity: Any,
    view: View,
    source: ViewSource,
    inputs: Mapping[str, PlannedItem],
    committed: dict[str, Any] | None,
    quarantine: Quarantine,
    *,
    retry: bool,
) -> PlannedItem:
    if not view.has_video and stage.reads_frames(chosen):
        raise UserError(
            f"'{stage.name}' needs frames, and recording '{view.recording}' has no video: it comes from the poses in "
            f"{view.path}.\nOf such recordings there are poses and what is made of them"
            + (', with backend = "import" under [pose].' if stage.name == "pose" else ".")
        )
    if view.status != "ok":
        why = f"{view.path} {view.reason}"
        return PlannedItem(key, "quarantined", why, "", chosen, {})
    if view.has_video and stage.reads_frames(chosen) and not (view.height > 0 and view.width > 0):
        # A catalog of an earlier version may list such a video as sound.
        why = f"{view.path} has no frame size. Run 'actionprep scan --again' to see why."
        return PlannedItem(key, "quarantined", why, "", chosen, {})
    blocked = [name for name, item in inputs.items() if item.action in ("quarantined", "blocked")]
    if blocked:
        return PlannedItem(key, "blocked", f"its input {blocked[0]} is quarantined", "", chosen, {})
    try:
        with explained_read_errors(source.path):
            reads = stage.reads_of_source(chosen, source)
    except InputError as problem:
        return PlannedItem(key, "quarantined", problem.reason, "", chosen, {})
    facts = _facts(
        stage,
        chosen.model_dump(mode="json"),
        identity(stage, chosen),
        reads,
        view,
        source,
        inputs,
    )
    fingerprint = _fingerprint(facts)
    provenance = {**facts, "source": {"path": view.path, **facts["source"]}, **_software()}
    if committed is not None and committed["fingerprint"] == fingerprint:
        return PlannedItem(key, "done", "", fingerprint, chosen, provenance, int(committed["nbytes"]))
    entry = quarantine.get(key)
    try_again = retry or (
        entry is not None and (entry.backend == READ_ERROR or (entry.backend == NO_FILE and Path(source.path).exists()))
    )
    if entry is not None and entry.fingerprint == fingerprint and not try_again:
        return PlannedItem(key, "quarantined", entry.reason, fingerprint, chosen, provenance)
    why = "new"
    if any(item.action == "build" for item in inputs.values()) and committed is not None:
        why = "its input changed"
    elif committed is not None:
        why = _what_changed(committed, chosen.model_dump(mode="json"), stage.version)
    return PlannedItem(key, "build", why, fingerprint, chosen, provenance, stage.estimated_bytes(chosen, source))


def _facts(
    stage: type[Stage],
    settings: dict[str, Any],
    identity: Any,
    reads: Any,
    view: View,
    source: ViewSource,
    inputs: Mapping[str, PlannedItem],
) -> dict[str, Any]:
    """What decides an item of a view, as plain values."""
    return {
        "stage": stage.name,
        "version": stage.version,
        "settings": settings,
        "identity": identity,
        "inputs": {name: item.fingerprint for name, item in sorted(inputs.items())},
        "source": {
            "digest": view.digest,
            "times": hashlib.sha256(source.times.astype("<f8").tobytes()).hexdigest(),
            "reads": reads,
        },
    }


def _fingerprint(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical_json(facts).encode()).hexdigest()


def _kept_item(
    stage: type[Stage],
    key: ItemKey,
    chosen: StageSettings,
    made: Recorded[StageSettings],
    identity: Any,
    view: View,
    source: ViewSource,
    inputs: Mapping[str, PlannedItem],
    committed: dict[str, Any],
) -> PlannedItem | None:
    """A stored input whose record names code or files, kept as it is; None if it has to be rebuilt.

    The contents of the user's own code and files are compared with the recorded hashes. Where the user names none, the
    recorded hashes stand: only the video and the inputs of the item are compared.
    """
    provenance = committed["provenance"]
    of_code, reads = provenance.get("identity"), (provenance.get("source") or {}).get("reads")
    if made.can_compare:
        made.require()
        of_code, reads = identity(stage, chosen), stage.reads_of_source(chosen, source)
    facts = _facts(stage, made.as_written, of_code, reads, view, source, inputs)
    if view.status != "ok" or _fingerprint(facts) != committed["fingerprint"]:
        return None
    return PlannedItem(key, "done", "", committed["fingerprint"], chosen, provenance, int(committed["nbytes"]))


_HASH = re.compile(r"(sha256:)?[0-9a-f]{64}")


def other_content(product: str, recorded: Any, used: Mapping[str, str]) -> list[str]:
    """Sentences for code or weights in use that have another hash than the recorded ones.

    Args:
        product: What they make.
        recorded: The recorded identity of the stage, name → value.
        used: The identity of what is used now.
    """
    before = recorded if isinstance(recorded, Mapping) else {}
    hashes = {name: value for name, value in before.items() if isinstance(value, str) and _HASH.fullmatch(value)}
    return [
        f"The {product} were made with other {name} than those in use: recorded hash {_short(value)}, in use "
        f"{_short(str(used.get(name, 'none')))}. Results can differ."
        for name, value in hashes.items()
        if used.get(name) != value
    ]


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]


def _committed(store: Store | None, key: ItemKey) -> tuple[dict[str, Any] | None, str]:
    """Metadata of an item, where it is committed and intact, and what is damaged, as a sentence."""
    try:
        return None if store is None else store.metadata(key), ""
    except DamagedItemError as error:
        return None, str(error).partition(" Run ")[0]


def _as_made(stage: type[Stage], committed: dict[str, Any], own: StageSettings) -> Recorded[StageSettings] | None:
    """The settings that a committed input was made with; None if this version of its stage may not understand them."""
    if committed["provenance"].get("version") != stage.version:
        return None
    where = f"the stored {stage.name}"
    return read_recorded(own, committed["provenance"]["settings"], table=stage.name, where=where)


def _what_changed(committed: dict[str, Any], settings: dict[str, Any], version: int) -> str:
    made = committed["provenance"]
    if made.get("version") != version:
        return f"the stage is now version {version}"
    before = made.get("settings", {})
    changed = sorted(key for key in settings.keys() | before.keys() if settings.get(key) != before.get(key))
    return f"settings changed: {', '.join(changed)}" if changed else "its source changed"


def _software() -> dict[str, Any]:
    from importlib.metadata import version

    names = ("actionprep", "numpy", "av", "opencv-python-headless", "zarr")
    versions = {}
    for name in names:
        try:
            versions[name] = version(name)
        except ImportError:  # importlib.metadata.PackageNotFoundError: run from a source tree
            versions[name] = "source"
    return {"software": {**versions, "python": platform.python_version()}}
