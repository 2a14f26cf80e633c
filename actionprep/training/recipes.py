"""Recipes: a model with its input, loss, optimizer and schedule, as settings that round-trip through TOML."""

from __future__ import annotations

import functools
import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import SerializeAsAny, model_validator

from actionprep.errors import UserError, nearest, nearest_few
from actionprep.registry import Registry
from actionprep.settings import Settings, option
from actionprep.training.inputs.base import INPUTS, InputSettings, find_input, input_settings

if TYPE_CHECKING:
    from actionprep.datasets.store.zarr_store import Store


class LossSettings(Settings):
    """Settings of the training loss."""

    name: Literal["auto", "cross-entropy", "bce", "focal", "asymmetric"] = option(
        "auto",
        "Loss function; auto: cross-entropy for single-label snippets, bce for multi-label ones. asymmetric is for "
        "multi-label snippets with mostly rare labels.",
    )
    class_weights: Literal["none", "balanced"] = option(
        "none",
        "Weight of each class; balanced: n / (C · n_c) over the training snippets, or for bce the ratio of negatives to "
        "positives.",
    )
    label_smoothing: float = option(0.0, "Fraction of the target spread evenly over all classes.", ge=0, lt=1)
    gamma: float = option(2.0, "Focusing exponent of focal: larger values down-weight well-classified samples.", ge=0)
    gamma_positive: float = option(0.0, "Focusing exponent of asymmetric for labels that a sample has.", ge=0)
    gamma_negative: float = option(4.0, "Focusing exponent of asymmetric for labels that a sample does not have.", ge=0)
    margin: float = option(
        0.05, "Probability below which asymmetric ignores labels that a sample does not have.", ge=0, lt=1
    )


class OptimizerSettings(Settings):
    """Settings of the optimizer."""

    name: Literal["adamw", "adam", "sgd"] = option("adamw", "Optimizer.")
    learning_rate: float = option(1e-3, "Peak learning rate.", gt=0)
    head_learning_rate: float | None = option(
        None, "Learning rate of the head (parameters named head.*); not set: learning_rate.", gt=0
    )
    backbone_learning_rate: float | None = option(
        None, "Learning rate of all parameters except the head; not set: learning_rate.", gt=0
    )
    layer_decay: float = option(
        1.0, "Factor on the learning rate per layer, from top to bottom, for fine-tuning.", gt=0, le=1
    )
    freeze: tuple[str, ...] = option(
        (),
        'Prefixes of parameters to freeze, for example ["patch_embed", "blocks.0"]; ["backbone"] freezes all except the '
        "head.",
    )
    weight_decay: float = option(
        0.05, "Weight decay; biases, normalization layers and position embeddings have none.", ge=0
    )
    momentum: float = option(0.9, "Momentum of sgd.", ge=0, lt=1)
    nesterov: bool = option(False, "Use Nesterov momentum in sgd.")
    gradient_clip: float | None = option(None, "Maximum gradient norm over all parameters; not set: no clipping.", gt=0)

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Self:
        if self.name == "sgd" and self.nesterov and self.momentum == 0:
            raise ValueError("nesterov = true needs a momentum above 0. Raise momentum, or set nesterov = false")
        return self


class ScheduleSettings(Settings):
    """Settings of the learning rate schedule."""

    name: Literal["cosine", "multistep", "exponential", "constant"] = option(
        "cosine", "Shape of the schedule after the warm-up."
    )
    warmup: float = option(0.1, "Fraction of all steps for the linear warm-up from 0.", ge=0, lt=1)
    milestones: tuple[int, ...] = option((), "Epochs at which multistep multiplies the rate by gamma.")
    gamma: float = option(0.1, "Factor of multistep at each milestone, or of exponential per epoch.", gt=0, le=1)


class Recipe(Settings):
    """Everything needed to train one model on one product."""

    name: str = option("custom", "Name of the recipe.")
    model: str = option(..., "Name of the model; 'actiontrain models' lists them.")
    product: str = option("tracks", "Product of the store that the model reads.")
    targets: Literal["snippet", "frame"] = option(
        "snippet",
        "Training targets; snippet: the labels of each snippet. frame: the labels of each frame, from the segments that "
        "the snippets were cut from (for models that label every frame).",
    )
    carry: bool = option(
        False,
        "Carry the model's state from one window to the next adjacent one, for models with a state. Training does not "
        "backpropagate into earlier windows.",
    )
    epochs: int = option(50, "Passes over the training snippets.", ge=1)
    min_steps: int = option(
        0,
        "Minimum number of optimizer steps: small data sets train for more epochs to reach it. --epochs and --set "
        "epochs=N set it to 0.",
        ge=0,
    )
    batch: int = option(16, "Snippets per batch, over all devices.", ge=1)
    accumulate: int = option(1, "Batches per optimizer step (gradient accumulation).", ge=1)
    seed: int = option(0, "Random seed of weights, data order, augmentation and dropout.", ge=0, lt=2**32)
    precision: Literal["32-true", "bf16-mixed", "16-mixed", "auto"] = option(
        "32-true",
        "Numeric precision; auto: bf16-mixed if the device has instructions for it, otherwise 32-true.",
    )
    compile: bool = option(False, "Compile the model with torch.compile; takes a minute and needs a C++ compiler.")
    channels_last: bool = option(
        False,
        "Store convolution weights in channels-last order, which is faster with bf16 and on GPUs; with precision auto, "
        "applies only if bf16 is used.",
    )
    ema: float | None = option(
        None, "Decay of the exponential moving average of weights, which tests use; not set: off.", gt=0, lt=1
    )
    mixup: float | None = option(None, "Alpha of mixup; not set: off.", gt=0)
    cutmix: float | None = option(
        None, "Alpha of CutMix; not set: off. If mixup is also set, each batch uses one of them at random.", gt=0
    )
    mixup_share: float = option(0.5, "Fraction of batches that mixup or CutMix changes.", ge=0, le=1)
    sampler: Literal["shuffle", "balanced"] = option(
        "shuffle",
        "Order of snippets; shuffle: every snippet once per epoch. balanced: the same number of draws, with equal class "
        "frequencies.",
    )
    validate_every: int = option(1, "Epochs between validations; the last epoch is always validated.", ge=1)
    monitor: Literal[
        "val_loss", "val_accuracy", "val_macro_f1", "val_map", "val_frame_accuracy", "val_frame_macro_f1"
    ] = option(
        "val_loss",
        'Validation metric for the best epoch and for patience; val_frame_… needs targets = "frame".',
    )
    patience: int | None = option(None, "Stop after this many epochs without improvement; not set: never.", ge=1)
    stop_below: float | None = option(
        None, "Stop after the first epoch with a validation loss below this value; not set: never.", gt=0
    )
    keep_epochs: bool = option(
        False, "Keep the checkpoint of every epoch before a refit, for 'actiontrain test --epochs'."
    )
    refit: bool = option(
        False,
        "After validation, retrain on train and val together with the full schedule and keep the final weights.",
    )
    val_by: Literal["group", "recording"] = option(
        "group",
        "Unit of the split of val from train: the groups of the test split (for example subjects), or recordings.",
    )
    test_variants: int = option(
        1,
        "Variants of each snippet (crops, times) to average at test time. For frames, this is input.clips · input.crops "
        '· input.jitters; for poses with sampling = "pyskl", input.clips, doubled if input.flip mirrors samples.',
        ge=1,
    )
    checkpoint_minutes: float = option(10.0, "Minutes between checkpoints within an epoch.", gt=0)
    workers: int = option(0, "Worker processes for products that do not fit in memory.", ge=0)
    sizes: dict[str, Any] = option({}, "Model settings that differ from the model's preset.")
    input: SerializeAsAny[InputSettings] = option(None, "Sampling and augmentation of snippets.")
    loss: LossSettings = option(LossSettings(), "Training loss.")
    optimizer: OptimizerSettings = option(OptimizerSettings(), "Optimizer.")
    schedule: ScheduleSettings = option(ScheduleSettings(), "Learning rate schedule.")
    doc: str = option("", "Description of the recipe, including the faults of the original that it fixes.")

    @model_validator(mode="after")
    def _frame_metric_needs_frame_targets(self) -> Self:
        if self.monitor.startswith("val_frame_") and self.targets != "frame":
            raise ValueError(f'monitor = "{self.monitor}" needs targets = "frame"')
        return self

    @model_validator(mode="before")
    @classmethod
    def _typed_input(cls, values: Any) -> Any:
        return _with_typed_input(values) if isinstance(values, Mapping) else values

    @classmethod
    def read(cls, values: dict[str, Any], *, where: str) -> Self:
        """Validate plain values; see `Settings.read`."""
        # Validate the input first, because pydantic would report its keys without their table.
        return super().read(_with_typed_input(values), where=where)

    @classmethod
    def from_toml(cls, text: str, *, where: str) -> Self:
        """Parse a recipe from TOML, the inverse of `to_toml`.

        Args:
            text: TOML document; missing keys keep their defaults.
            where: Name of the source in error messages.

        Returns:
            The recipe.

        Raises:
            UserError: If the text is not valid TOML, or a table, key or value is wrong.
        """
        return cls.from_tables(_parsed_toml(text, where), where=where)

    @classmethod
    def whole_from_toml(cls, text: str, *, where: str) -> Self:
        """The recipe of a run, which `to_toml` wrote with all its tables.

        Raises:
            UserError: If a table is missing: the file was cut off, and defaults would silently take its place.
        """
        recipe = cls.from_toml(text, where=where)
        missing = [name for name in ("recipe", *_TABLES) if name not in tomllib.loads(text)]
        if missing:
            raise UserError(
                f"{where} is damaged: it has no table [{missing[0]}], as every recipe of a run has. "
                "Train again into another folder."
            )
        return recipe

    @classmethod
    def from_tables(cls, tables: Mapping[str, Any], *, where: str) -> Self:
        """Create a recipe from its tables [recipe], [sizes], [input], [loss], [optimizer] and [schedule].

        Args:
            tables: Settings by table; missing tables and keys keep their defaults.
            where: Name of the source in error messages.

        Returns:
            The recipe.

        Raises:
            UserError: If a table, key or value is wrong.
        """
        known = ("recipe", *_TABLES)
        for name in tables:
            if name not in known:
                raise UserError(f"Unknown table [{name}] in {where}.{nearest(name, known)} Tables: {', '.join(known)}.")
        values = {name: value for name, value in tables.items() if name != "recipe"}
        given = {**tables.get("recipe", {}), **values}
        product = given.get("product", cls.model_fields["product"].default)
        keys = _OPTIONAL_KEYS | _optional_keys(find_input(product).Settings)
        return cls.read(_none_from_text(given, keys), where=where)

    def as_recorded(self, where: str) -> Self:
        """Return this recipe, which a checkpoint or a run recorded, if it names no recipe file elsewhere.

        Fusions of earlier versions name recipe files instead of holding the recipes: these are read below the current
        folder alone, links followed.

        Raises:
            UserError: If it is a fusion that names a recipe file outside of the current folder.
        """
        names, held = getattr(self.input, "recipes", ()), getattr(self.input, "parts", {})
        here = Path.cwd().resolve()
        files = [name for name in names if name not in held and name not in recipe_names()]
        wrong = [name for name in files if not Path(name).resolve().is_relative_to(here)]
        if wrong:
            raise UserError(
                f"{where} names the recipe file {wrong[0]!r} in input.recipes and does not hold that recipe in input.parts. "
                "Data must not name files outside of the current folder. Copy the recipe here, or train again."
            )
        return self

    @property
    def reads(self) -> str:
        """Product of the store that the input reads, which can differ from `product`: heatmaps are rendered from poses."""
        return find_input(self.product).reads(self.input)

    def self_contained(self) -> Recipe:
        """Return a copy that contains the recipes it refers to by name, as a fusion does."""
        return self.model_copy(update={"input": find_input(self.product).self_contained(self.input)})

    def to_tables(self) -> dict[str, dict[str, Any]]:
        """Return plain values by table, the inverse of `from_tables`."""
        values = self.model_dump(mode="json")
        tables = {name: values.pop(name) for name in _TABLES}
        return {"recipe": values, **tables}

    def to_toml(self, *, comments: bool = True) -> str:
        """Format the recipe as TOML, the inverse of `from_toml`.

        Args:
            comments: Write the description of each key above it.

        Returns:
            A TOML document with every setting. None is written as "none".
        """
        models: dict[str, type[Settings] | None] = {"recipe": Recipe, "sizes": None, "input": type(self.input)}
        models |= {name: type(getattr(self, name)) for name in ("loss", "optimizer", "schedule")}
        blocks = []
        for table, values in self.to_tables().items():
            lines, inner = [f"[{table}]"], []
            for key, value in values.items():
                model = models[table]
                field = model.model_fields.get(key) if model is not None else None
                comment = [f"# {field.description}"] if comments and field is not None and field.description else []
                if _is_recipes(value):
                    recipe_tables = _toml_of_recipes(f"{table}.{key}", value)
                    inner += ["\n".join([*comment, recipe_tables[0]]), *recipe_tables[1:]]
                else:
                    lines += [*comment, f"{key} = {_toml(value)}"]
            blocks += ["\n".join(lines), *inner]
        return "\n\n".join(blocks) + "\n"

    def changed(self, changes: Mapping[str, Any], *, where: str = "changes to the recipe") -> Recipe:
        """Return a copy with some settings replaced.

        An explicit number of epochs sets min_steps to 0, unless min_steps is also given. New names in input.recipes
        load those recipes again. If the product changes, the settings that both inputs have are kept. The doc of a
        named recipe lists the changed settings.

        Args:
            changes: New values by dotted name, for example {"epochs": 10, "input.rotation": 0.3}.
            where: Name of the source in error messages.

        Returns:
            The changed recipe.

        Raises:
            UserError: If a name or value is wrong.
        """
        tables: dict[str, dict[str, Any]] = {"recipe": {}, **{name: {} for name in _TABLES}} | self.to_tables()
        changes = {name.removeprefix("recipe."): value for name, value in changes.items()}
        if "epochs" in changes:
            changes = {"min_steps": 0, **changes}
        if changes.get("product", self.product) != self.product:
            known = find_input(str(changes["product"])).Settings.model_fields
            # Check this first: the same key can mean something else in another input.
            check_product(self.name, changes.get("model", self.model), changes["product"])
            tables["input"] = {key: value for key, value in tables["input"].items() if key in known}
        if "input.recipes" in changes:
            tables["input"].pop("parts", None)
        for name, value in changes.items():
            table, _, key = name.rpartition(".")
            if (table or "recipe") not in tables:
                raise UserError(
                    f"Unknown table '{table}' in {where}: '{name}'.{nearest(table, tables)} Tables: "
                    f"{', '.join(tables)}."
                )
            tables[table or "recipe"][key] = value
        recipe = type(self).from_tables(tables, where=where)
        return recipe if "doc" in changes else _with_changes_in_doc(recipe)


_TABLES = ("sizes", "input", "loss", "optimizer", "schedule")


RECIPE_FILES = Path(__file__).parent / "recipe_files"
"""Folder of the recipes that come with the package, one TOML file per recipe."""


def _load_recipe_files() -> None:
    """Register the recipes that come with the package."""
    for path in sorted(RECIPE_FILES.glob("*.toml")):
        register_file(path)


RECIPES: Registry[Mapping[str, Any]] = Registry(
    "recipe",
    "actionprep.recipes",
    plural="Recipes",
    instance_of="collections.abc:Mapping",
    fill=_load_recipe_files,
)
"""Tables of the named recipes, as `Recipe.from_tables` reads them."""


def register(name: str, doc: str, *, tables: Mapping[str, Mapping[str, Any]], **settings: Any) -> None:
    """Register a recipe.

    Args:
        name: Name for --recipe.
        doc: Description; 'actiontrain recipes' prints its first sentence.
        tables: Settings of the tables [sizes], [input], [loss], [optimizer] and [schedule].
        **settings: Settings of the table [recipe], for example model and product.

    Raises:
        UserError: If the name is already registered.
    """
    RECIPES[name] = {
        "recipe": {"name": name, "doc": doc, **settings},
        **{key: dict(values) for key, values in tables.items()},
    }


def register_file(path: str | Path) -> None:
    """Register the recipe in a TOML file; its name is the name of the file without ".toml".

    Args:
        path: TOML file in the format that `Recipe.to_toml` writes.

    Raises:
        UserError: If the name is already registered. An invalid file raises it when the recipe is first used.
    """
    RECIPES[Path(path).stem] = _RecipeFile(Path(path))


class _RecipeFile(Mapping[str, Any]):
    """Tables of a recipe file, which is read on first use."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @functools.cached_property
    def _tables(self) -> dict[str, Any]:
        return _read_tables(self._path)

    def __getitem__(self, name: str) -> Any:
        return self._tables[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tables)

    def __len__(self) -> int:
        return len(self._tables)


def recipe_names() -> list[str]:
    """Return the names of all registered recipes, sorted."""
    return sorted(RECIPES)


def find_recipe(name: str) -> Recipe:
    """Return a registered recipe, or read one from a file.

    Args:
        name: Name of a registered recipe, or path of a TOML file (must end in .toml).

    Returns:
        The recipe.

    Raises:
        UserError: If there is no such recipe (the message lists similar names), or the file is wrong.
    """
    known = recipe_names()
    if name in known:
        tables = RECIPES[name]
        named = {**tables, "recipe": {"name": name, **tables.get("recipe", {})}}
        return Recipe.from_tables(named, where=f"the recipe '{name}'")
    if name.endswith(".toml"):
        return Recipe.from_tables(_read_tables(Path(name)), where=name)
    near = nearest_few(name, known)
    similar = f" Similar names: {', '.join(near)}." if near else ""
    raise UserError(
        f"No recipe '{name}'.{similar} 'actiontrain recipes' lists all {len(known)}. To use your own recipe, give the path "
        "of its .toml file."
    )


def _read_tables(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"Cannot read the recipe {path}: {error.strerror or error}.") from None
    return _parsed_toml(text, str(path))


def _parsed_toml(text: str, where: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{where} is not valid TOML: {error}.") from None


@dataclass(frozen=True)
class RecipeChoice:
    """Default recipe for a store.

    Attributes:
        recipe: The chosen recipe.
        why: Reason for the choice, as part of a sentence.
    """

    recipe: Recipe
    why: str


PREFERRED = MappingProxyType(
    {
        "tracks": "view-transformer",
        "pose": "skeleton-tcn",
        "lowres": "i3d-small",
        "frames": "timesformer-small",
    }
)
"""Default recipe of each product, preferred products first."""


def choose_recipe(store: Store, preferred: Mapping[str, str] = PREFERRED) -> RecipeChoice:
    """Choose the default recipe for the products in a store.

    Args:
        store: Store with at least one product.
        preferred: Recipe by product, preferred products first.

    Returns:
        The recipe of the first available product.

    Raises:
        UserError: If the store has no product that a recipe reads.
    """
    available, known = store.products(), recipe_names()
    for product, name in preferred.items():
        if product in available and name in known:
            others = [other for other in available if other in preferred and other != product]
            why = f"the store has {product}" + (f" (also {', '.join(others)})" if others else "")
            return RecipeChoice(find_recipe(name), why)
    raise UserError(
        f"No product to train on in {store.url}. Available products: {', '.join(available) or 'none'}. Recipes read "
        f"{', '.join(preferred)}.\nRun 'actionprep track' and 'actionprep snippets' in the study folder first."
    )


def check_product(recipe: str, model: str, product: str) -> None:
    """Check that a model reads a product.

    Args:
        recipe: Name of the recipe, for the error message.
        model: Name of the model.
        product: Product to check.

    Raises:
        UserError: If the model reads another product.
    """
    from actionprep.training.models.registry import model_card

    card = model_card(model)
    # Both products store RGB frames, at different sizes.
    readable = ("frames", "lowres") if card.pixels is not None else (card.product,)
    if product not in readable:
        raise UserError(
            f"The model '{model}' of the recipe '{recipe}' reads {' or '.join(readable)}, not '{product}'. Set product = "
            f'"{card.product}", or choose another model (actiontrain models).'
        )


def differing_settings(old: Recipe, new: Recipe) -> Iterator[tuple[str, Any, Any]]:
    """Compare two recipes setting by setting.

    If the products differ, only the product is reported, not the settings of its input. For fusions, settings of the
    recipes that both contain are also compared, with names such as "input.points of mine.toml".

    Args:
        old: First recipe.
        new: Second recipe; precision "auto" equals any precision.

    Yields:
        The dotted name of each setting that differs, its old value and its new value. Docs are ignored.
    """
    if new.precision == "auto":
        new = new.changed({"precision": old.precision, "channels_last": old.channels_last})
    yield from _differing(old, new)


def differences(old: Recipe, new: Recipe) -> list[str]:
    """Describe the result of `differing_settings` in words, for example "epochs is 4, not 8"."""
    return [
        f"{name} is {setting_text(old_value)}, not {setting_text(new_value)}"
        for name, old_value, new_value in differing_settings(old, new)
    ]


def _differing(old: Recipe, new: Recipe) -> Iterator[tuple[str, Any, Any]]:
    old_tables, new_tables = old.to_tables(), new.to_tables()
    # Fusion runs of early versions do not contain the recipes of their parts.
    old_parts, new_parts = (tables["input"].pop("parts", {}) for tables in (old_tables, new_tables))
    if type(old.input) is not type(new.input):
        del old_tables["input"]
    yield from _differing_tables(old_tables, new_tables)
    for part, tables in old_parts.items():
        for name, old_value, new_value in _differing_tables(tables, new_parts.get(part, tables)):
            yield f"{name} of {part}", old_value, new_value


def _differing_tables(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for table, values in old.items():
        for key in dict.fromkeys([*values, *new[table]]):
            old_value, new_value = values.get(key), new[table].get(key)
            if old_value != new_value and key != "doc":
                yield key if table == "recipe" else f"{table}.{key}", old_value, new_value


_CHANGED = " Changed here: "
_NOT_IN_DOC = ("seed", "precision", "channels_last", "workers")
"""Settings that the doc of a changed recipe does not list."""


def _with_changes_in_doc(recipe: Recipe) -> Recipe:
    """Append to the doc of a named recipe the settings that differ from the registered recipe."""
    preset = RECIPES.get(recipe.name)
    preset_doc = "" if preset is None else preset.get("recipe", {}).get("doc", "")
    if not preset_doc or recipe.doc.partition(_CHANGED)[0] != preset_doc:
        return recipe
    names = [name for name, _, _ in _differing(find_recipe(recipe.name), recipe) if name not in _NOT_IN_DOC]
    doc = preset_doc + (f"{_CHANGED}{', '.join(names)}." if names else "")
    return recipe.model_copy(update={"doc": doc})


def setting_text(value: Any) -> str:
    """Format the value of a setting for display."""
    if value is None:
        return "not set"
    return value if isinstance(value, str) else _toml(value)


def applicable_changes(recipe: Recipe, changes: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Select the changes of a study that apply to a recipe.

    The changes of a study serve all its recipes, so settings of other inputs or models are skipped. Settings that no
    input or model has are kept, so that `Recipe.changed` reports them.

    Args:
        recipe: Recipe to change.
        changes: New values by dotted name.

    Returns:
        The changes to apply, and the names of the skipped ones.
    """
    from actionprep.training.models.registry import MODELS, model_settings

    kept, skipped = {}, []
    for name, value in changes.items():
        table, _, key = name.rpartition(".")
        elsewhere = False
        if table == "input" and key not in type(recipe.input).model_fields:
            elsewhere = any(key in reader.Settings.model_fields for reader in INPUTS.working().values())
        elif table == "sizes" and key not in model_settings(recipe.model):
            elsewhere = any(key in model_settings(model) for model in MODELS.working())
        if elsewhere:
            skipped.append(name)
        else:
            kept[name] = value
    return kept, skipped


def _with_typed_input(values: Mapping[str, Any]) -> dict[str, Any]:
    product = values.get("product", Recipe.model_fields["product"].default)
    settings = input_settings(product, values.get("input") or {})
    known = {} if settings.variants is None else {"test_variants": settings.variants}
    return {**values, "input": settings, **known}


def _toml(value: Any) -> str:
    if value is None:
        return '"none"'
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{json.dumps(key)} = {_toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False)


def _is_recipes(value: Any) -> bool:
    """Whether a setting maps names to the tables of recipes."""
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(tables, Mapping) and "recipe" in tables for tables in value.values())
    )


def _toml_of_recipes(key: str, recipes: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[str]:
    return [
        "\n".join(
            [
                f"[{key}.{json.dumps(name, ensure_ascii=False)}.{table}]",
                *(f"{setting} = {_toml(value)}" for setting, value in values.items()),
            ]
        )
        for name, tables in recipes.items()
        for table, values in tables.items()
    ]


def _none_from_text(values: Any, keys: frozenset[str]) -> Any:
    if isinstance(values, Mapping):
        return {
            key: None if value == "none" and key in keys else _none_from_text(value, keys)
            for key, value in values.items()
        }
    return values


def _optional_keys(*models: type[Settings]) -> frozenset[str]:
    """Return the keys that can be None."""
    fields = [pair for model in models for pair in model.model_fields.items()]
    return frozenset(key for key, field in fields if type(None) in getattr(field.annotation, "__args__", ()))


_OPTIONAL_KEYS = _optional_keys(Recipe, LossSettings, OptimizerSettings, ScheduleSettings)
