"""Recipes: a named model with its input, loss, optimizer and schedule, as settings that print themselves."""

from __future__ import annotations

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
from actionprep.training.models.registry import load_model_files

if TYPE_CHECKING:
    from actionprep.datasets.store.zarr_store import Store


class LossSettings(Settings):
    """What is minimized."""

    name: Literal["auto", "cross-entropy", "bce", "focal", "asymmetric"] = option(
        "auto",
        "auto: cross-entropy for one label a snippet, bce where several are allowed; asymmetric is for several labels "
        "of which most are rare.",
    )
    class_weights: Literal["none", "balanced"] = option(
        "none", "balanced: n / (C · n_c) of the training snippets; for bce the ratio of negatives to positives."
    )
    label_smoothing: float = option(0.0, "Share of the target spread over all classes.", ge=0, lt=1)
    gamma: float = option(2.0, "For focal: how much well-classified samples count less.", ge=0)
    gamma_positive: float = option(0.0, "For asymmetric: the same for labels that a sample has.", ge=0)
    gamma_negative: float = option(4.0, "For asymmetric: the same for labels that it has not.", ge=0)
    margin: float = option(
        0.05, "For asymmetric: labels that a sample has not count nothing below this probability.", ge=0, lt=1
    )


class OptimizerSettings(Settings):
    """How weights are updated."""

    name: Literal["adamw", "adam", "sgd"] = option("adamw", "The rule of the update.")
    learning_rate: float = option(1e-3, "Highest learning rate.", gt=0)
    head_learning_rate: float | None = option(
        None, "Rate of the head (parameters named head.*); not set: the same.", gt=0
    )
    backbone_learning_rate: float | None = option(None, "Rate of all but the head; not set: the same.", gt=0)
    layer_decay: float = option(
        1.0, "Factor of the rate from one layer to the one below it, for weights that were trained before.", gt=0, le=1
    )
    freeze: tuple[str, ...] = option(
        (),
        'Parameters that stay as they are, by the beginning of their names, as ["patch_embed", "blocks.0"]; ["backbone"] is '
        "all but the head.",
    )
    weight_decay: float = option(0.05, "Decay of weights; biases, norms and position codes have none.", ge=0)
    momentum: float = option(0.9, "For sgd.", ge=0, lt=1)
    nesterov: bool = option(False, "For sgd: look ahead along the momentum.")
    gradient_clip: float | None = option(None, "Longest gradient, by its norm over all weights.", gt=0)

    @model_validator(mode="after")
    def _momentum_to_look_along(self) -> Self:
        if self.name == "sgd" and self.nesterov and self.momentum == 0:
            raise ValueError(
                "nesterov looks ahead along the momentum, and momentum is 0: raise it, or leave nesterov out"
            )
        return self


class ScheduleSettings(Settings):
    """How the learning rate goes over the run."""

    name: Literal["cosine", "multistep", "exponential", "constant"] = option("cosine", "Shape after the warm-up.")
    warmup: float = option(0.1, "Share of all steps over which the rate rises from 0.", ge=0, lt=1)
    milestones: tuple[int, ...] = option((), "For multistep: epochs at which the rate is multiplied by gamma.")
    gamma: float = option(0.1, "For multistep: the factor; for exponential: the factor of each epoch.", gt=0, le=1)


class Recipe(Settings):
    """One way to train one model on one product."""

    name: str = option("custom", "Name of the recipe.")
    model: str = option(..., "Name of the model, as 'actiontrain models' lists it.")
    product: str = option("tracks", "What of the store the model reads.")
    targets: Literal["snippet", "frame"] = option(
        "snippet",
        "What is learnt of a snippet: its labels, or (frame) those of each of its instants, from the segments behind the "
        "snippets; for models that label every frame.",
    )
    carry: bool = option(
        False,
        "A window that begins where another one ends goes on from the state in which the model left that one: in training "
        "without gradient through the windows before; for models that keep a state.",
    )
    epochs: int = option(50, "Passes over the training snippets.", ge=1)
    min_steps: int = option(
        0,
        "Steps at least: with few snippets there are more epochs than 'epochs' says, until they make so many steps; "
        "--epochs and --set epochs=N set it to 0.",
        ge=0,
    )
    batch: int = option(16, "Snippets in a step, over all devices.", ge=1)
    accumulate: int = option(1, "Batches whose gradients are added up for one step.", ge=1)
    seed: int = option(0, "Seed of weights, order, augmentation and dropout.", ge=0, lt=2**32)
    precision: Literal["32-true", "bf16-mixed", "16-mixed", "auto"] = option(
        "32-true",
        "Number format of the computation; auto: bf16-mixed where the device has instructions for it, else 32-true.",
    )
    compile: bool = option(False, "Compile the model (torch.compile); takes a minute and a C++ compiler.")
    channels_last: bool = option(
        False,
        "Keep the weights of convolutions channels last, as GPUs and bf16 like them; with precision auto only beside bf16.",
    )
    ema: float | None = option(
        None, "Decay of the running mean of the weights that tests use; not set: none.", gt=0, lt=1
    )
    mixup: float | None = option(None, "Alpha of mixup; not set: none.", gt=0)
    cutmix: float | None = option(
        None, "Alpha of CutMix, pieces of one sample in another; with mixup, each batch draws one of both.", gt=0
    )
    mixup_share: float = option(0.5, "Share of the batches that are mixed.", ge=0, le=1)
    sampler: Literal["shuffle", "balanced"] = option(
        "shuffle", "shuffle: every snippet once an epoch; balanced: as many draws, each class as often as the others."
    )
    validate_every: int = option(1, "Epochs from one validation to the next; the last epoch has one in any case.", ge=1)
    monitor: Literal[
        "val_loss", "val_accuracy", "val_macro_f1", "val_map", "val_frame_accuracy", "val_frame_macro_f1"
    ] = option(
        "val_loss", 'What chooses the best epoch and ends the run by patience; val_frame_… with targets = "frame".'
    )
    patience: int | None = option(None, "Epochs without improvement after which the run ends; not set: never.", ge=1)
    refit: bool = option(
        False,
        "After validation, train once more on train and val together with the whole schedule, and keep its last "
        "weights.",
    )
    val_by: Literal["group", "recording"] = option(
        "group",
        "What stays together when val is carved out of train: the groups of the split (subjects, say), or recordings.",
    )
    test_variants: int = option(
        1,
        "Variants of each snippet (crops, times) whose probabilities are averaged in tests; of pictures there are "
        "input.clips · input.crops · input.jitters.",
        ge=1,
    )
    checkpoint_minutes: float = option(10.0, "Minutes between checkpoints within an epoch.", gt=0)
    workers: int = option(0, "Processes that read products which are not held in memory.", ge=0)
    sizes: dict[str, Any] = option({}, "Settings of the model that differ from its preset.")
    input: SerializeAsAny[InputSettings] = option(None, "How snippets are sampled and augmented.")
    loss: LossSettings = option(LossSettings(), "What is minimized.")
    optimizer: OptimizerSettings = option(OptimizerSettings(), "How weights are updated.")
    schedule: ScheduleSettings = option(ScheduleSettings(), "How the learning rate goes.")
    doc: str = option("", "What the recipe is, and which faults of the original it fixes.")

    @model_validator(mode="after")
    def _frames_to_monitor(self) -> Self:
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
        # The input's own errors name its keys only when they do not pass through this model's validation.
        return super().read(_with_typed_input(values), where=where)

    @classmethod
    def from_toml(cls, text: str, *, where: str) -> Self:
        """A recipe from the text that `to_toml` gives; keys that are not there keep their defaults."""
        try:
            tables = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise UserError(f"{where} is not valid TOML: {error}.") from None
        return cls.from_tables(tables, where=where)

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
        """A recipe from its tables [recipe], [sizes], [input], [loss], [optimizer], [schedule]."""
        known = ("recipe", *_TABLES)
        for name in tables:
            if name not in known:
                raise UserError(f"Unknown table [{name}] in {where}.{nearest(name, known)} Tables: {', '.join(known)}.")
        values = {name: value for name, value in tables.items() if name != "recipe"}
        given = {**tables.get("recipe", {}), **values}
        product = given.get("product", cls.model_fields["product"].default)
        keys = _NONE_KEYS | _keys_of_none(find_input(product).Settings)
        return cls.read(_without_word_for_none(given, keys), where=where)

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
        """The product of the store that the input reads: heatmaps, for one, are rendered from poses."""
        return find_input(self.product).reads(self.input)

    def self_contained(self) -> Recipe:
        """This recipe with what others, that it names, say now: a fusion holds the recipes that it joins."""
        return self.model_copy(update={"input": find_input(self.product).self_contained(self.input)})

    def to_tables(self) -> dict[str, dict[str, Any]]:
        """Plain values by table; `from_tables` reads them back."""
        values = self.model_dump(mode="json")
        tables = {name: values.pop(name) for name in _TABLES}
        return {"recipe": values, **tables}

    def to_toml(self, *, comments: bool = True) -> str:
        """The recipe as TOML, each key with its meaning; None is written "none"."""
        models: dict[str, type[Settings] | None] = {"recipe": Recipe, "sizes": None, "input": type(self.input)}
        models |= {name: type(getattr(self, name)) for name in ("loss", "optimizer", "schedule")}
        blocks = []
        for table, values in self.to_tables().items():
            lines, inner = [f"[{table}]"], []
            for key, value in values.items():
                model = models[table]
                field = model.model_fields.get(key) if model is not None else None
                said = [f"# {field.description}"] if comments and field is not None and field.description else []
                if _is_recipes(value):
                    written = _toml_of_recipes(f"{table}.{key}", value)
                    inner += ["\n".join([*said, written[0]]), *written[1:]]
                else:
                    lines += [*said, f"{key} = {_toml(value)}"]
            blocks += ["\n".join(lines), *inner]
        return "\n\n".join(blocks) + "\n"

    def changed(self, changes: Mapping[str, Any], *, where: str = "changes to the recipe") -> Recipe:
        """This recipe with some settings replaced, by dotted names: {"epochs": 10, "input.rotation": 0.3}.

        Epochs that are asked for are meant: min_steps no longer raises them, unless it is given too. Recipes that a fusion
        is asked to join are read anew. With another product the input keeps those settings that this product's input has
        too. The doc of a named recipe says what was changed.

        Raises UserError for names and values that are wrong.
        """
        tables: dict[str, dict[str, Any]] = {"recipe": {}, **{name: {} for name in _TABLES}} | self.to_tables()
        changes = {name.removeprefix("recipe."): value for name, value in changes.items()}
        if "epochs" in changes:
            changes = {"min_steps": 0, **changes}
        if changes.get("product", self.product) != self.product:
            known = find_input(str(changes["product"])).Settings.model_fields
            # Before the input's settings, which may mean something else there.
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
        made = type(self).from_tables(tables, where=where)
        return made if "doc" in changes else _with_changes_in_doc(made)


_TABLES = ("sizes", "input", "loss", "optimizer", "schedule")


RECIPES: Registry[Mapping[str, Any]] = Registry(
    "recipe",
    "actionprep.recipes",
    plural="Recipes",
    instance_of="collections.abc:Mapping",
    fill=load_model_files,
)
"""Tables of the named recipes, as `Recipe.from_tables` reads them."""


def register(name: str, doc: str, *, tables: Mapping[str, Mapping[str, Any]], **settings: Any) -> None:
    """Add a recipe to the list; a second one of the same name is refused."""
    RECIPES[name] = {
        "recipe": {"name": name, "doc": doc, **settings},
        **{key: dict(one) for key, one in tables.items()},
    }


def recipe_names() -> list[str]:
    """Names of all recipes."""
    return sorted(RECIPES)


def find_recipe(name: str) -> Recipe:
    """The recipe of that name, or of the TOML file at that path; raises UserError naming the nearest ones."""
    known = recipe_names()
    if name in known:
        tables = RECIPES[name]
        named = {**tables, "recipe": {"name": name, **tables.get("recipe", {})}}
        return Recipe.from_tables(named, where=f"the recipe '{name}'")
    if name.endswith(".toml"):
        try:
            with open(name, encoding="utf-8") as file:
                return Recipe.from_toml(file.read(), where=name)
        except OSError as error:
            raise UserError(f"Cannot read the recipe {name}: {error.strerror or error}.") from None
    near = nearest_few(name, known)
    among = f" The nearest {'are' if len(near) > 1 else 'is'} {', '.join(near)};" if near else ""
    raise UserError(
        f"No recipe '{name}'.{among} 'actiontrain recipes' lists all {len(known)}. A recipe "
        "of your own is named by its file, which ends in .toml."
    )


@dataclass(frozen=True)
class RecipeChoice:
    """The recipe that suits a store, and why."""

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
"""For each product, best first, the recipe that is used when none is named."""


def choose_recipe(store: Store, preferred: Mapping[str, str] = PREFERRED) -> RecipeChoice:
    """The recipe for what the store holds; raises UserError when it holds nothing that a recipe reads."""
    have, known = store.products(), recipe_names()
    for product, name in preferred.items():
        if product in have and name in known:
            others = [one for one in have if one in preferred and one != product]
            why = f"the store holds {product}" + (f" (also {', '.join(others)})" if others else "")
            return RecipeChoice(find_recipe(name), why)
    raise UserError(
        f"Nothing to train on in {store.url}: it has {', '.join(have) or 'nothing yet'}, and recipes read "
        f"{', '.join(preferred)}.\nRun 'actionprep track' and 'actionprep snippets' in the study folder first."
    )


def check_product(recipe: str, model: str, product: str) -> None:
    """Raise UserError when the model of this recipe reads another product."""
    from actionprep.training.models.registry import model_card

    card = model_card(model)
    # Stored frames and small ones make the same clips.
    readable = ("frames", "lowres") if card.pixels is not None else (card.product,)
    if product not in readable:
        raise UserError(
            f"The recipe '{recipe}' binds the model '{model}', which reads {' or '.join(readable)}, to the product "
            f"'{product}'. Set product = \"{card.product}\", or choose another model (actiontrain models)."
        )


def differing(begun: Recipe, asked: Recipe) -> Iterator[tuple[str, Any, Any]]:
    """The settings in which two recipes differ, by dotted names, with the values in both; precision auto differs from none.

    Of products whose inputs have other settings, the product alone says it; of fusions also those of the recipes that both
    hold, as "input.points of mine.toml".
    """
    if asked.precision == "auto":
        asked = asked.changed({"precision": begun.precision, "channels_last": begun.channels_last})
    yield from _differing(begun, asked)


def differences(begun: Recipe, asked: Recipe) -> list[str]:
    """`differing` as sentences: "epochs is 4, not 8"."""
    return [f"{name} is {said(one)}, not {said(two)}" for name, one, two in differing(begun, asked)]


def _differing(begun: Recipe, asked: Recipe) -> Iterator[tuple[str, Any, Any]]:
    """The settings, but for the doc, in which two recipes differ, by dotted names, with the values in both."""
    mine, other = begun.to_tables(), asked.to_tables()
    # Runs from before recipes were held in a fusion have none.
    parts, others = (tables["input"].pop("parts", {}) for tables in (mine, other))
    if type(begun.input) is not type(asked.input):
        del mine["input"]
    yield from _differing_tables(mine, other)
    for part, tables in parts.items():
        for name, one, two in _differing_tables(tables, others.get(part, tables)):
            yield f"{name} of {part}", one, two


def _differing_tables(mine: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for table, values in mine.items():
        for key in dict.fromkeys([*values, *other[table]]):
            one, two = values.get(key), other[table].get(key)
            if one != two and key != "doc":
                yield key if table == "recipe" else f"{table}.{key}", one, two


_CHANGED = " Changed here: "
_UNTOLD = ("seed", "precision", "channels_last", "workers")
"""Settings of which the doc of a recipe says nothing: its changes need not be told there."""


def _with_changes_in_doc(recipe: Recipe) -> Recipe:
    """A recipe whose doc ends with the settings in which it differs from the named recipe that the doc is of."""
    preset = RECIPES.get(recipe.name)
    doc = "" if preset is None else preset.get("recipe", {}).get("doc", "")
    if not doc or recipe.doc.partition(_CHANGED)[0] != doc:
        return recipe
    names = [name for name, _, _ in _differing(find_recipe(recipe.name), recipe) if name not in _UNTOLD]
    doc += f"{_CHANGED}{', '.join(names)}." if names else ""
    return recipe.model_copy(update={"doc": doc})


def said(value: Any) -> str:
    """The value of a setting for a reader."""
    if value is None:
        return "not set"
    return value if isinstance(value, str) else _toml(value)


def suited(recipe: Recipe, changes: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Those of a study's changes that a recipe can have, and the names of the others.

    One table of changes serves all recipes of a study: settings that only other inputs or other models have are left out.
    What none has stays, to be refused.
    """
    from actionprep.training.models.registry import MODELS, model_settings

    kept, others = {}, []
    for name, value in changes.items():
        table, _, key = name.rpartition(".")
        elsewhere = False
        if table == "input" and key not in type(recipe.input).model_fields:
            elsewhere = any(key in reader.Settings.model_fields for reader in INPUTS.working().values())
        elif table == "sizes" and key not in model_settings(recipe.model):
            elsewhere = any(key in model_settings(one) for one in MODELS.working())
        if elsewhere:
            others.append(name)
        else:
            kept[name] = value
    return kept, others


def _with_typed_input(values: Mapping[str, Any]) -> dict[str, Any]:
    product = values.get("product", Recipe.model_fields["product"].default)
    settings = input_settings(product, values.get("input") or {})
    known = {} if settings.variants is None else {"test_variants": settings.variants}
    return {**values, "input": settings, **known}


def _toml(value: Any) -> str:
    if value is None:
        return '"none"'
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{json.dumps(key)} = {_toml(one)}" for key, one in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_toml(one) for one in value) + "]"
    return json.dumps(value, ensure_ascii=False)


def _is_recipes(value: Any) -> bool:
    """Whether a setting holds tables of recipes by their names; those are written as tables."""
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(one, Mapping) and "recipe" in one for one in value.values())
    )


def _toml_of_recipes(key: str, recipes: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[str]:
    return [
        "\n".join(
            [
                f"[{key}.{json.dumps(name, ensure_ascii=False)}.{table}]",
                *(f"{one} = {_toml(value)}" for one, value in values.items()),
            ]
        )
        for name, tables in recipes.items()
        for table, values in tables.items()
    ]


def _without_word_for_none(values: Any, keys: frozenset[str]) -> Any:
    if isinstance(values, Mapping):
        return {
            key: None if value == "none" and key in keys else _without_word_for_none(value, keys)
            for key, value in values.items()
        }
    return values


def _keys_of_none(*models: type[Settings]) -> frozenset[str]:
    """Names of the settings that may be not set."""
    fields = [pair for model in models for pair in model.model_fields.items()]
    return frozenset(key for key, field in fields if type(None) in getattr(field.annotation, "__args__", ()))


_NONE_KEYS = _keys_of_none(Recipe, LossSettings, OptimizerSettings, ScheduleSettings)
