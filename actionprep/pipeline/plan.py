"""Plan a build: compare every wanted item with the store, from metadata alone."""

from __future__ import annotations

import functools
import hashlib
import platform
import re
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from actionprep.datasets.paths import is_plain
from actionprep.datasets.store.keys import ItemKey
from actionprep.datasets.store.provenance import difference, made_alike, provenance_of
from actionprep.datasets.store.reader import DamagedItemError
from actionprep.datasets.store.zarr_store import Store
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
    """One item and its action.

    Attributes:
        key: The item.
        action: What a build does with it.
        why: Reason as a phrase: "new", "settings changed: grid", "source changed", …
        fingerprint: Fingerprint that it has after the build.
        settings: Settings that it is, or will be, made with.
        provenance: Provenance that it has after the build; without the software for an item that is not built.
        nbytes: Bytes of array content: an estimate for an item to build, the true value for one that is done.
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
    """All items to build for one view, in dependency order."""

    source: ViewSource
    items: tuple[PlannedItem, ...]

    @property
    def num_frames(self) -> int:
        """Number of frames to decode; 0 if no stage needs frames."""
        needs = any(find_stage(item.key.product).reads_frames(item.settings) for item in self.items)
        return self.source.num_frames if needs else 0


@dataclass(frozen=True)
class KeptOption:
    """An option of a command line that items of a stage keep.

    Attributes:
        stage: Name of the stage.
        setting: Name of the setting.
        values: Distinct plain values that the items were made with.
        in_file: Value that the settings file gives.
    """

    stage: str
    setting: str
    values: tuple[Any, ...]
    in_file: Any


@dataclass(frozen=True)
class Plan:
    """The items of all wanted stages and their inputs, and the tasks that will build the missing ones.

    Attributes:
        items: Every item with its action.
        view_tasks: Tasks that build the missing items of views.
        study_stages: Stages that make one product for the study, with their settings.
        skipped: Recordings that were left out.
        forced: Items that are rebuilt whatever the store has.
        notes: A sentence for each item with damaged metadata that names the settings to rebuild it with.
        kept: Items that keep options of the command line that made them.
        store: Snapshot that the items were compared with; None for an empty store.
    """

    items: tuple[PlannedItem, ...]
    view_tasks: tuple[ViewTask, ...]
    study_stages: tuple[tuple[str, StageSettings], ...]
    skipped: tuple[str, ...] = ()
    forced: frozenset[ItemKey] = frozenset()
    notes: tuple[str, ...] = ()
    kept: tuple[ItemKey, ...] = ()
    store: Store | None = field(default=None, compare=False, repr=False)

    def kept_options(self) -> list[KeptOption]:
        """Options of command lines that items keep, each once per stage."""
        keys = set(self.kept)
        options: dict[tuple[str, str], KeptOption] = {}
        for item in self.items:
            if item.key not in keys:
                continue
            values = item.settings.model_dump(mode="json")
            for name, in_file in item.settings.command_line.items():
                known = options.get((item.key.product, name), KeptOption(item.key.product, name, (), in_file))
                if values[name] not in known.values:
                    known = replace(known, values=(*known.values, values[name]))
                options[item.key.product, name] = known
        return list(options.values())

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
        """Look settings up in a store; None has no items."""
        self._store = None if store is None else store.snapshot()
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
        alike = {canonical_json([item["provenance"].get(name) for name in ("version", "settings")]) for item in made}
        recorded = _as_made(stage, made[0], own) if len(alike) == 1 else None
        if recorded is None:
            return None, "the settings of actionprep.toml"
        which = "only intact item" if len(made) == 1 else f"{len(made)} intact items"
        return recorded, f"the settings of the {which} of '{stage.name}'"


class _Resolver:
    """Settings of items with their plain values and identities, each computed once per plan."""

    def __init__(self, root: str) -> None:
        self._root = Path(root)
        self._values: dict[int, tuple[StageSettings, dict[str, Any], str]] = {}
        self._identities: dict[tuple[str, str], dict[str, str]] = {}
        self._texts: dict[int, tuple[object, str]] = {}
        self._options: dict[int, tuple[StageSettings, dict[str, Any]]] = {}
        self._last_times: tuple[Any, str] = None, ""
        self._made: dict[tuple[str, int, str], Recorded[StageSettings] | None] = {}
        self._kept: dict[tuple[str, int, str], StageSettings | None] = {}

    def values(self, settings: StageSettings) -> dict[str, Any]:
        """Settings as plain values."""
        return self._dumped(settings)[1]

    def _dumped(self, settings: StageSettings) -> tuple[StageSettings, dict[str, Any], str]:
        if id(settings) not in self._values:
            values = settings.recorded()
            # The settings are stored as well, so that no other object gets their id.
            self._values[id(settings)] = settings, values, canonical_json(values)
        return self._values[id(settings)]

    def options(self, settings: StageSettings) -> dict[str, Any]:
        """The part of an item's provenance that names options of the command line."""
        if id(settings) not in self._options:
            self._options[id(settings)] = settings, _options(settings)
        return self._options[id(settings)][1]

    def identity(self, stage: type[Stage], settings: StageSettings) -> dict[str, str]:
        """What besides the settings decides the result of a stage."""
        known = stage.name, self._dumped(settings)[2]
        if known not in self._identities:
            self._identities[known] = {**stage.identity(settings), **STAGES.origin(stage.name)}
        return self._identities[known]

    def times_digest(self, source: ViewSource) -> str:
        """Hash of the frame times of a view. The last one is kept, because the stages of a view come in a row."""
        if self._last_times[0] is not source.times:
            self._last_times = source.times, hashlib.sha256(source.times.astype("<f8").tobytes()).hexdigest()
        return self._last_times[1]

    def text(self, value: object) -> str:
        """Canonical JSON of settings or of an identity that `values` or `identity` returned."""
        if id(value) not in self._texts:
            self._texts[id(value)] = value, canonical_json(value)
        return self._texts[id(value)][1]

    def as_made(
        self, stage: type[Stage], committed: dict[str, Any], own: StageSettings
    ) -> Recorded[StageSettings] | None:
        """Settings that a committed item was made with; None if this version of its stage may not understand them."""
        made = committed["provenance"]
        known = stage.name, id(own), repr([made.get(name) for name in ("version", "settings", "command_line")])
        if known not in self._made:
            self._dumped(own)
            recorded = _as_made(stage, committed, own)
            if recorded is not None:
                settings = recorded.settings.at(self._root).with_command_line(_command_line(made))
                recorded = replace(recorded, settings=settings)
            self._made[known] = recorded
        return self._made[known]

    def kept(self, stage: type[Stage], committed: dict[str, Any], own: StageSettings) -> StageSettings | None:
        """The user's settings with the options that made a committed item on a command line.

        Such an option counts until the user gives it another value in the settings file.

        Returns:
            The settings; None for an item that no option made, or none that still counts.
        """
        made = committed["provenance"]
        if not _command_line(made):
            return None
        known = stage.name, id(own), repr([made.get(name) for name in ("settings", "command_line")])
        if known not in self._kept:
            self._kept[known] = self._with_options(stage, made, own)
        return self._kept[known]

    def _with_options(self, stage: type[Stage], made: Mapping[str, Any], own: StageSettings) -> StageSettings | None:
        values, used = self.values(own), made.get("settings", {})
        in_file = {name: value for name, value in _command_line(made).items() if name in used and name in values}
        in_file = {name: value for name, value in in_file.items() if values[name] == value != used[name]}
        if not in_file:
            return None
        recorded = {**values, **{name: used[name] for name in in_file}}
        try:
            stored = read_recorded(own, recorded, table=stage.name, where=f"the stored {stage.name}")
        except UserError:
            return None  # of another version of the stage
        in_file = {
            name: value for name, value in in_file.items() if getattr(stored.settings, name) != getattr(own, name)
        }
        return None if stored.problem or not in_file else stored.settings.at(self._root).with_command_line(in_file)


def _command_line(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """The options in the provenance of an item that came from a command line; see `StageSettings.command_line`."""
    options = provenance.get("command_line")
    return options if isinstance(options, dict) else {}


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
    explicit: Container[str] = (),
) -> Plan:
    """Compare every wanted item, and every item that it reads, with the store.

    Args:
        catalog: Recordings, views and segments.
        store: The store; None compares with an empty one.
        wanted: Names of the wanted stages.
        settings: Settings by name of the stage. Only those of wanted stages and of their inputs are read.
        views: Views to plan.
        quarantine: Items that failed before.
        root: Folder that relative paths in settings start from.
        enforce: Whether inputs that were made with other settings than these are rebuilt. Otherwise they are used as
            they are, since somebody made them so on purpose.
        retry: Whether quarantined items are tried again.
        skipped: Recordings that were left out, for the plan's report.
        force: Items to rebuild with the settings that they were made with.
        warn: Called with a sentence for recorded settings that are ignored because data must not name code or files,
            and for code or weights that have changed.
        intact: Source of settings for items with a damaged record of them; looked up in the store when None.
        explicit: Stages with settings that this command sets. Items of other stages keep the options of the command
            line that made them.

    Raises:
        SetupError: If a backend that is needed is missing.
    """
    wanted = list(wanted)
    store = None if store is None else store.snapshot()
    order = dependency_order(wanted, settings)
    resolver = _Resolver(root)
    intact = intact or IntactSettings(store)
    items: list[PlannedItem] = []
    tasks: list[ViewTask] = []
    notes: list[str] = []
    kept: list[ItemKey] = []
    per_view = [name for name in order if not issubclass(find_stage(name), ArrayStage)]
    for view in sorted(views, key=lambda view: (view.recording, view.id)):
        source = view_source(catalog, view, root)
        planned: dict[str, PlannedItem] = {}
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
                    made = resolver.as_made(stage, committed, chosen)
            elif committed is not None and name not in explicit:
                with_options = resolver.kept(stage, committed, chosen)
                if with_options is not None:
                    chosen = with_options
                    kept.append(key)
            if made is not None:
                chosen = made.settings.at(Path(root)) if damage else made.settings
                for ignored in made.ignored:
                    warn(str(ignored))
            inputs = {read.product: planned[read.product] for read in stage.inputs(chosen)}
            if made is not None and made.ignored and committed is not None and key not in force:
                as_it_is = _kept_item(stage, key, chosen, made, resolver, view, source, inputs, committed)
                if as_it_is is not None:
                    planned[name] = as_it_is
                    continue
            if made is not None:
                made.require()
            planned[name] = _planned_item(
                stage, key, chosen, resolver, view, source, inputs, committed, quarantine, retry=retry
            )
            if key in force and planned[name].action == "done":
                provenance = {**planned[name].provenance, **_software()}
                planned[name] = replace(planned[name], action="build", why="damaged", provenance=provenance)
            if made is not None and committed is not None and planned[name].action == "build":
                recorded = committed["provenance"].get("identity", {})
                for sentence in other_content(name, recorded, planned[name].provenance["identity"]):
                    warn(sentence)
            if damage and planned[name].action == "build":
                planned[name] = replace(planned[name], why="damaged")
                notes.append(f"{damage} It is rebuilt with {named}.")
        items.extend(planned.values())
        to_build = tuple(item for item in planned.values() if item.action == "build")
        if to_build:
            tasks.append(ViewTask(source, to_build))
    study_stages = []
    for name in (name for name in order if issubclass(find_stage(name), ArrayStage)):
        chosen = settings[name]
        key = study_key(name, chosen)
        committed = _committed(store, key)[0]
        if committed is not None and key not in force and name not in explicit:
            with_options = resolver.kept(find_stage(name), committed, chosen)
            if with_options is not None:
                chosen = with_options
                kept.append(key)
        study_stages.append((name, chosen))
        item = plan_study_item(catalog, store, name, chosen, force=force)
        items.append(item)
        if item.why == "damaged" and (damage := _committed(store, item.key)[1]):
            notes.append(f"{damage} It is rebuilt with the settings of this command or of actionprep.toml.")
    return Plan(tuple(items), tuple(tasks), tuple(study_stages), skipped, force, tuple(notes), tuple(kept), store)


def mixtures(plan: Plan, store: Store) -> list[str]:
    """Return a sentence for each product of views whose items will differ in settings once the plan is built."""
    store = store.snapshot()
    made = {item.key: item.provenance for item in plan.items if item.key.view and item.action in ("build", "done")}
    sentences = []
    for product in dict.fromkeys(key.product for key in made):
        others = store.intact(key for key in store.items(product) if key not in made)
        of_product = {key: provenance for key, provenance in made.items() if key.product == product}
        differing = difference(made_alike({**provenance_of(store, others), **of_product}))
        if differing:
            sentences.append(f"Items of '{product}' were made with different settings: {differing}.")
    return sentences


def study_key(name: str, settings: StageSettings) -> ItemKey:
    """Key of a product of the study, made with these settings."""
    return ItemKey(name, str(getattr(settings, "name", "default")))


def plan_study_item(
    catalog: Catalog,
    store: Store | None,
    name: str,
    chosen: StageSettings,
    *,
    force: frozenset[ItemKey] = frozenset(),
) -> PlannedItem:
    """Plan a product of the study."""
    stage = find_stage(name)
    assert issubclass(stage, ArrayStage)
    key = study_key(name, chosen)
    values = chosen.recorded()
    facts = {
        "stage": name,
        "version": stage.version,
        "settings": values,
        "reads": stage.depends_on(chosen, catalog),
    }
    origin = STAGES.origin(name)
    if origin:
        facts["identity"] = origin
    fingerprint = hashlib.sha256(canonical_json(facts).encode()).hexdigest()
    committed, damage = _committed(store, key)
    done = committed is not None and committed["fingerprint"] == fingerprint and key not in force
    provenance = {"stage": name, "version": stage.version, "settings": values, **_options(chosen)}
    if origin:
        provenance["identity"] = origin
    why = (
        ""
        if done
        else "damaged"
        if damage or key in force
        else "new"
        if committed is None
        else _what_changed(committed, values, stage.version)
    )
    if not done:
        provenance |= _software()
    nbytes = int(committed["nbytes"]) if done and committed is not None else 0
    return PlannedItem(key, "done" if done else "build", why, fingerprint, chosen, provenance, nbytes)


def dependency_order(wanted: Iterable[str], settings: Mapping[str, StageSettings]) -> list[str]:
    """Return the wanted stages and all their inputs, inputs first."""
    order: list[str] = []

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            raise UserError(f"Stages read each other in a circle: {' → '.join((*path, name))}.")
        if name in order:
            return
        for needed in find_stage(name).inputs(settings[name]):
            visit(needed.product, (*path, name))
        order.append(name)

    for name in wanted:
        visit(name, ())
    return order


def view_source(catalog: Catalog, view: View, root: str) -> ViewSource:
    """Describe a view for stages."""
    segments = tuple(catalog.segments_of(view.recording))
    is_normal = root.startswith("/") and is_plain(view.path)
    return ViewSource(
        recording=view.recording,
        view=view.id,
        path=f"{root}/{view.path}" if is_normal else str(catalog.resolve(view.path, root)),
        height=view.height,
        width=view.width,
        fps=view.fps,
        times=view.times,
        segments=segments,
        root=root,
        poses=view.poses,
        reading=view.reading.at(root),
    )


def _planned_item(
    stage: type[Stage],
    key: ItemKey,
    chosen: StageSettings,
    resolver: _Resolver,
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
            f"{view.path}.\nSuch recordings have poses and products of poses only"
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
        resolver.values(chosen),
        resolver.identity(stage, chosen),
        reads,
        view,
        resolver.times_digest(source),
        inputs,
    )
    fingerprint = _fingerprint(facts, resolver)
    provenance = {**facts, "source": {"path": view.path, **facts["source"]}, **resolver.options(chosen)}
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
        why = _what_changed(committed, resolver.values(chosen), stage.version)
    nbytes = stage.estimated_bytes(chosen, source)
    return PlannedItem(key, "build", why, fingerprint, chosen, {**provenance, **_software()}, nbytes)


def _facts(
    stage: type[Stage],
    settings: dict[str, Any],
    identity: Any,
    reads: Any,
    view: View,
    times_digest: str,
    inputs: Mapping[str, PlannedItem],
) -> dict[str, Any]:
    """Everything that decides the content of an item of a view, as plain values."""
    return {
        "stage": stage.name,
        "version": stage.version,
        "settings": settings,
        "identity": identity,
        "inputs": {name: item.fingerprint for name, item in sorted(inputs.items())},
        "source": {
            "digest": view.digest,
            "times": times_digest,
            "reads": reads,
            # Absent for full frames of one file, so that fingerprints of such views stay.
            **({"reading": reading} if (reading := view.reading.facts()) else {}),
        },
    }


def _fingerprint(facts: Mapping[str, Any], resolver: _Resolver) -> str:
    """Hash facts as canonical JSON. Settings and identities, the largest part, are the same for most items."""
    identity, settings = resolver.text(facts["identity"]), resolver.text(facts["settings"])
    inputs = canonical_json(facts["inputs"]) if facts["inputs"] else "{}"
    own = canonical_json({name: facts[name] for name in ("source", "stage", "version")})
    text = f'{{"identity":{identity},"inputs":{inputs},"settings":{settings},{own[1:]}'
    return hashlib.sha256(text.encode()).hexdigest()


def _kept_item(
    stage: type[Stage],
    key: ItemKey,
    chosen: StageSettings,
    made: Recorded[StageSettings],
    resolver: _Resolver,
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
        of_code, reads = resolver.identity(stage, chosen), stage.reads_of_source(chosen, source)
    facts = _facts(stage, made.as_written, of_code, reads, view, resolver.times_digest(source), inputs)
    if view.status != "ok" or _fingerprint(facts, resolver) != committed["fingerprint"]:
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
    """Return the attributes of an intact item, else None, and a sentence about damage."""
    try:
        return None if store is None else store.metadata(key), ""
    except DamagedItemError as error:
        return None, str(error).partition(" Run ")[0]


def _as_made(stage: type[Stage], committed: dict[str, Any], own: StageSettings) -> Recorded[StageSettings] | None:
    """Return the settings that a committed input was made with; None if its stage now has another version."""
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


def _options(settings: StageSettings) -> dict[str, Any]:
    """The part of an item's provenance that names options of the command line; outside its fingerprint and digest."""
    return {"command_line": settings.command_line} if settings.command_line else {}


def _software() -> dict[str, Any]:
    """The part of an item's provenance that names versions of software."""
    return {"software": _versions()}


@functools.cache
def _versions() -> dict[str, str]:
    """Versions of the packages that an item can depend on; looked up once per process."""
    from importlib.metadata import PackageNotFoundError, version

    versions = {}
    for name in ("actionprep", "numpy", "av", "opencv-python-headless", "zarr"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:  # run from a source tree
            versions[name] = "source"
    return {**versions, "python": platform.python_version()}
