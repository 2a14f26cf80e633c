"""Load published weights into our models and export ours: key maps, adapted shapes and a report of mismatches."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import nn

from actionprep.errors import UserError, first_lines, name_list
from actionprep.training.models.motionbert import HeatmapMotionBERT
from actionprep.training.models.pixels import unwrap_model
from actionprep.training.models.published.families import FAMILIES, Family, find_family, unchanged
from actionprep.training.models.published.fitting import fit_tensor, shape_text, temporal_copies
from actionprep.training.models.published.key_maps import State
from actionprep.training.models.published.weight_files import color_order_of, read_weights, state_of
from actionprep.training.models.timesformer import TimeSformer
from actionprep.training.models.vivit import ViViT


@dataclass(frozen=True, slots=True)
class Fitted:
    """A weight that was adapted to the model.

    Attributes:
        name: Name of the weight.
        was: Shape in the file.
        now: Shape in the model.
        how: Description of the change.
    """

    name: str
    was: tuple[int, ...]
    now: tuple[int, ...]
    how: str


@dataclass(frozen=True, slots=True)
class LoadReport:
    """Result of loading a checkpoint.

    Attributes:
        family: Layout of the file.
        path: The file.
        loaded: Weights of the model that came from the file, including adapted ones.
        fitted: Adapted weights.
        fresh: Weights of the model that are missing in the file and keep their initial values.
        left_out: Unused tensors of the file, with the reason.
        color_order: Channel order that the weights were trained with, if the file defines it.
        notes: Other facts to know, such as the model variant that the weights require.
    """

    family: str
    path: str
    loaded: tuple[str, ...]
    fitted: tuple[Fitted, ...]
    fresh: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...]
    color_order: Literal["RGB", "BGR"] | None = None
    notes: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether every weight of the model is from the file and every tensor of the file was used."""
        return not self.fresh and not self.left_out

    def __str__(self) -> str:
        lines = [
            f"{self.path}: {self.family} weights, {len(self.loaded)} of {len(self.loaded) + len(self.fresh)} loaded "
            f"({len(self.fitted)} adapted), {len(self.left_out)} tensors of the file unused."
        ]
        lines += [
            f"  adapted   {text}"
            for text in first_lines(
                [f"{f.name}: {shape_text(f.was)} → {shape_text(f.now)}, {f.how}" for f in self.fitted]
            )
        ]
        lines += [f"  missing   {name}" for name in first_lines(self.fresh)]
        lines += [f"  unused    {text}" for text in first_lines([f"{name}: {why}" for name, why in self.left_out])]
        lines += [f"  note      {text}" for text in self.notes]
        if self.color_order is not None:
            lines.append(f"  These weights expect {self.color_order} frames.")
        return "\n".join(lines)


def load_checkpoint(
    model: nn.Module,
    path: str | Path,
    *,
    family: str | None = None,
    strict: bool = False,
    source_grid: tuple[int, int, int] | None = None,
    echo: Callable[[str], None] | None = print,
) -> LoadReport:
    """Load published weights into a model.

    Only tensors and plain containers are unpickled. If an error is raised, the model is unchanged.

    Some models have variants with the same weights, for example I3D with or without its second max pool. If the file can
    only come from one of them, a model that was built without choosing one (None) becomes that variant. A model that was
    built as another variant keeps it, with a warning in the report.

    Args:
        model: Model to load into.
        path: File (.pyth, .pt, .pth, .bin, .safetensors), or a folder saved by transformers.
        family: One of FAMILIES; None: recognize it by its keys.
        strict: Require that the file has every weight except the class head, and is of the same variant.
        source_grid: Tubelet grid (time, rows, columns) of a ViViT position table, if it cannot be inferred.
        echo: Function that prints the report; None: do not print.

    Returns:
        A report of loaded, adapted, missing and unused weights.

    Raises:
        UserError: If the file is not a checkpoint, or is of another family or size.
    """
    path = Path(path)
    content = read_weights(path)
    state = state_of(content, path)
    chosen = _family(model, state, family, path)
    ours = chosen.to_ours(state)
    report, fitted = _fit(model, ours, chosen, path, source_grid, color_order_of(content))
    if strict and any(name not in chosen.head for name in report.fresh):
        raise UserError(f"Strict loading failed: {path} does not have every weight of the model.\n{report}")
    other_variant = [key for key, value in chosen.variant.items() if getattr(model, key) not in (None, value)]
    if strict and other_variant:
        raise UserError(f"Strict loading failed: {path} is of another variant than the model.\n{report}")
    model.load_state_dict(fitted, strict=False)
    if chosen.variant and not other_variant:
        set_variant: Callable[..., None] = getattr(model, "set_variant")  # noqa: B009
        set_variant(**chosen.variant)
    if echo is not None:
        echo(str(report))
    return report


def published_state(model: nn.Module, *, family: str) -> State:
    """Export a model's weights with the keys of a published family, for use in other code.

    Args:
        model: Trained model; wrappers such as `PixelClassifier` are removed.
        family: One of FAMILIES.

    Returns:
        State dict with the published keys.

    Raises:
        UserError: If the family is of another model, cannot be written, or has no head like the model's.
    """
    chosen, model = find_family(family), unwrap_model(model)
    if not isinstance(model, chosen.model) or chosen.to_theirs is None:
        raise UserError(
            f"A {type(model).__name__} cannot be exported as '{family}'. Possible families: "
            + (", ".join(f.name for f in FAMILIES.values() if isinstance(model, f.model) and f.to_theirs) or "none")
            + "."
        )
    for key, value in chosen.variant.items():
        if bool(getattr(model, key)) != value:
            raise UserError(
                f"Weights of the family '{family}' are used with {key} = {_toml(value)}, but this model has {key} = "
                f"{_toml(not value)}: in other code its outputs would differ. "
                + ("Use the family 'i3d-tinyvirat'." if key == "early_pool" else "Use 'actiontrain export'.")
            )
    if isinstance(model, TimeSformer) and model.pool != "class":
        raise UserError(
            f"'{family}' has only a head for the class token, but this TimeSformer was trained with sizes.pool = "
            f'"{model.pool}". Train with sizes.pool = "class", or use \'actiontrain export\'.'
        )
    return chosen.to_theirs(dict(model.state_dict()))


def published_variant(path: str | Path) -> Mapping[str, bool]:
    """Return the settings of the model variant that a published checkpoint can only come from.

    Args:
        path: The file.

    Returns:
        Value by setting, such as {"early_pool": True}; empty if the weights fit every variant.

    Raises:
        UserError: If the file is not a checkpoint.
    """
    keys = set(state_of(read_weights(Path(path)), Path(path)))
    return next((family.variant for family in FAMILIES.values() if family.recognize(keys)), {})


# Layers between keypoints and tokens; heatmap tokens have their own.
_KEYPOINT_LAYERS = ("backbone.joints_embed.", "backbone.head.")
_FRONT_END = "front."


def _family(model: nn.Module, state: State, family: str | None, path: Path) -> Family:
    keys = set(state)
    candidates = [f for f in FAMILIES.values() if isinstance(model, f.model)]
    if family is not None:
        chosen = find_family(family)
        if not isinstance(model, chosen.model):
            raise UserError(
                f"Weights of the family '{family}' are for {chosen.model.__name__}, but the model is a "
                f"{type(model).__name__}. "
                + (
                    f"Possible families: {', '.join(f.name for f in candidates)}."
                    if candidates
                    else "No published weights are known for it."
                )
            )
        if not chosen.recognize(keys) and not _ours(model, keys):
            raise UserError(f"{path} does not contain '{family}' weights. Its first keys: {_first(keys)}.")
        return chosen
    for chosen in candidates:
        if chosen.recognize(keys):
            return chosen
    others = [f.name for f in FAMILIES.values() if f.recognize(keys)]
    # Keys can match both our names and another family; they are ours if the model has all of them.
    if _ours(model, keys) and (not others or keys <= set(model.state_dict())):
        return Family("actionprep", type(model), lambda _: True, unchanged, unchanged)
    raise UserError(
        f"The weights in {path} are not for {type(model).__name__}: "
        + (f"they look like {' or '.join(others)} weights. " if others else f"their first keys are {_first(keys)}. ")
        + (
            f"Expected one of {', '.join(f.name for f in candidates)}."
            if candidates
            else "No published weights are known for it; use weights of the same model trained here."
        )
    )


def _ours(model: nn.Module, keys: set[str]) -> bool:
    return len(keys & set(model.state_dict())) > len(model.state_dict()) // 2


def _fit(
    model: nn.Module,
    ours: State,
    family: Family,
    path: Path,
    source_grid: tuple[int, int, int] | None,
    color_order: Literal["RGB", "BGR"] | None,
) -> tuple[LoadReport, State]:
    """Adapt the tensors of a file to the model; returns a report and the state dict to load."""
    weights = model.state_dict()
    if family.part:
        weights = {name: tensor for name, tensor in weights.items() if name.startswith(family.part)}
    elif not any(name.startswith(_FRONT_END) for name in ours):
        # Published files of the classifier never contain the front end.
        weights = {name: tensor for name, tensor in weights.items() if not name.startswith(_FRONT_END)}
    if (
        isinstance(model, TimeSformer)
        and model.attention != "divided"
        and any(".temporal_attn." in key for key in ours)
    ):
        raise UserError(
            f"{path} has weights of a TimeSformer with divided attention, and this model has {model.attention} attention, "
            "for which they were not trained. Use the recipe timesformer, or weights of the same kind of attention."
        )
    loaded: State = {}
    fitted: list[Fitted] = []
    left_out: list[tuple[str, str]] = []
    mismatched: list[str] = []
    extra = temporal_copies(model, ours)
    patches = ours.get("patch_embed.proj.weight")
    if isinstance(model, ViViT) and patches is not None and patches.ndim == 4 and source_grid is None:
        side = math.isqrt(ours["pos_embed"].shape[1]) if "pos_embed" in ours else 0
        source_grid = (1, side, side)
    for name, tensor in [*ours.items(), *extra.items()]:
        if name.startswith("?") or name not in weights:
            left_out.append((name.removeprefix("?"), "not in the model"))
            continue
        target = weights[name]
        if tensor.shape == target.shape:
            loaded[name] = tensor
            if name in extra:
                shape = tuple(tensor.shape)
                fitted.append(Fitted(name, shape, shape, "copied from attention over space"))
        elif name in family.head and tensor.shape[0] != target.shape[0]:
            left_out.append((name, f"{tensor.shape[0]} classes, the model has {target.shape[0]}"))
        elif name in family.head:
            left_out.append((name, f"{shape_text(tensor.shape)}, the model has {shape_text(target.shape)}"))
        elif isinstance(model, HeatmapMotionBERT) and name.startswith(_KEYPOINT_LAYERS):
            left_out.append((name, "tokens of the file are keypoints, those of the model heatmaps"))
        elif (adapted := fit_tensor(model, name, tensor, target, source_grid)) is not None:
            loaded[name], how = adapted
            fitted.append(Fitted(name, tuple(tensor.shape), tuple(target.shape), how))
        else:
            mismatched.append(
                f"{name} is {shape_text(tensor.shape)} in the file and {shape_text(target.shape)} in the model"
            )
    if mismatched:
        raise UserError(
            f"The {family.name} weights in {path} have other shapes than the model: "
            f"{'; '.join(first_lines(mismatched, 3))}. "
            "Build the model with the sizes of the weights, or use other weights."
        )
    not_finite = [name for name, tensor in loaded.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if not_finite:
        raise UserError(
            f"{len(not_finite)} of {len(loaded)} tensors in {path} are not finite (NaN or Inf): "
            f"{', '.join(first_lines(not_finite, 3))}. The training diverged, or the file is damaged. Use an earlier "
            "checkpoint, or download the file again."
        )
    # Running statistics of batch norms count as weights, their step counters do not.
    fresh = tuple(name for name in weights if name not in loaded and not name.endswith("num_batches_tracked"))
    report = LoadReport(
        family.name,
        str(path),
        tuple(loaded),
        tuple(fitted),
        fresh,
        tuple(left_out),
        color_order,
        _notes(model, family),
    )
    expected = [name for name in weights if name not in family.head]
    if sum(name in loaded for name in expected) * 2 < len(expected):
        raise UserError(
            f"{path} has only {len(loaded)} of the {len(weights)} weights of this {type(model).__name__}. At least half are "
            f"required.\n{report}"
        )
    return report, loaded


def _notes(model: nn.Module, family: Family) -> tuple[str, ...]:
    notes = [family.note] if family.note else []
    for key, value in family.variant.items():
        if getattr(model, key) in (None, value):
            notes.append(f"{key} = {_toml(value)}, because these weights only come from this variant of the model.")
        else:
            notes.append(
                f"Warning: these weights only come from {key} = {_toml(value)}, and this model has {key} = "
                f"{_toml(not value)}. Its outputs differ from the published ones until it is trained. Remove sizes.{key} "
                "to use the published variant."
            )
    return tuple(notes)


def _toml(value: bool) -> str:
    return "true" if value else "false"


def _first(keys: set[str]) -> str:
    return name_list(sorted(keys), 3)
