"""Published weights into our models and back: explicit key maps, fitted positions, a report of what did not match."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import nn

from actionprep.errors import UserError
from actionprep.training.models.motionbert import HeatmapMotionBERT
from actionprep.training.models.pixels import bare
from actionprep.training.models.published.families import FAMILIES, Family, find_family, unchanged
from actionprep.training.models.published.fitting import made_to_fit, shape_text, temporal_copies
from actionprep.training.models.published.key_maps import State
from actionprep.training.models.published.weight_files import color_order_of, read_weights, state_of
from actionprep.training.models.timesformer import TimeSformer
from actionprep.training.models.vivit import ViViT


@dataclass(frozen=True, slots=True)
class Fitted:
    """A weight that was made to fit: its name, both shapes, and how."""

    name: str
    was: tuple[int, ...]
    now: tuple[int, ...]
    how: str


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What became of a checkpoint.

    loaded: weights of the model that came from the file, the fitted ones among them.
    fresh: weights of the model that the file did not have and that keep their start values.
    left_out: tensors of the file that were not used, with the reason.
    color_order: the channel order that the weights were trained on, where the file says so.
    """

    family: str
    path: str
    loaded: tuple[str, ...]
    fitted: tuple[Fitted, ...]
    fresh: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...]
    color_order: Literal["RGB", "BGR"] | None = None

    @property
    def complete(self) -> bool:
        """Whether every weight of the model came from the file and every tensor of the file was used."""
        return not self.fresh and not self.left_out

    def __str__(self) -> str:
        lines = [
            f"{self.path}: {self.family} weights, {len(self.loaded)} of {len(self.loaded) + len(self.fresh)} loaded, "
            f"{len(self.fitted)} of them fitted, {len(self.left_out)} tensors of the file left out."
        ]
        lines += [
            f"  fitted    {text}"
            for text in _few([f"{f.name}: {shape_text(f.was)} → {shape_text(f.now)}, {f.how}" for f in self.fitted])
        ]
        lines += [f"  fresh     {name}" for name in _few(self.fresh)]
        lines += [f"  left out  {text}" for text in _few([f"{name}: {why}" for name, why in self.left_out])]
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
    """Load published weights into a model and say what matched and what did not.

    path: a file (.pyth, .pt, .pth, .bin, .safetensors) or a folder as transformers saves it.
    family: one of FAMILIES, or None to recognize it by its keys.
    strict: refuse weights that leave anything but the class head fresh.
    source_grid: tubelets (time, rows, columns) that a ViViT position table was made for, where that cannot be told.
    echo: what prints the report; None prints nothing.

    Nothing is unpickled but tensors and plain containers. Raises UserError, with the model untouched, for a file that
    is no checkpoint, of another family or of another size.
    """
    path = Path(path)
    content = read_weights(path)
    state = state_of(content, path)
    chosen = _family(model, state, family, path)
    ours = chosen.to_ours(state)
    report, fitted = _fit(model, ours, chosen, path, source_grid, color_order_of(content))
    if strict and any(name not in chosen.head for name in report.fresh):
        raise UserError(f"{path} does not have every weight of the model, and strict loading was asked for.\n{report}")
    model.load_state_dict(fitted, strict=False)
    if echo is not None:
        echo(str(report))
    return report


def published_state(model: nn.Module, *, family: str) -> State:
    """The model's weights under the keys of a published family, for other people's code.

    A model that stands behind what turns stored bytes into its values is written without that.

    Raises UserError where the family has no way back or is another model's, or the model's head none that was published.
    """
    chosen, model = find_family(family), bare(model)
    if not isinstance(model, chosen.model) or chosen.to_theirs is None:
        raise UserError(
            f"A {type(model).__name__} cannot be written as '{family}'. Families that it can be written as: "
            + (", ".join(f.name for f in FAMILIES.values() if isinstance(model, f.model) and f.to_theirs) or "none")
            + "."
        )
    if isinstance(model, TimeSformer) and model.pool != "class":
        raise UserError(
            f"This TimeSformer pools by '{model.pool}', and '{family}' has no such head: it reads the class token alone. "
            'Only weights trained with sizes.pool = "class" can be written as published ones; hand this model over with '
            "'actiontrain export'."
        )
    return chosen.to_theirs(dict(model.state_dict()))


# What turns keypoints into tokens and back; heatmap tokens need their own.
_KEYPOINT_ENDS = ("backbone.joints_embed.", "backbone.head.")
_FRONT_END = "front."


def _family(model: nn.Module, state: State, family: str | None, path: Path) -> Family:
    keys = set(state)
    fitting = [f for f in FAMILIES.values() if isinstance(model, f.model)]
    if family is not None:
        chosen = find_family(family)
        if not isinstance(model, chosen.model):
            raise UserError(
                f"Weights of the family '{family}' are for {chosen.model.__name__}, and the model is a "
                f"{type(model).__name__}. "
                + (
                    f"It takes {', '.join(f.name for f in fitting)}."
                    if fitting
                    else "No published weights are known for it."
                )
            )
        if not chosen.recognize(keys) and not _ours(model, keys):
            raise UserError(f"{path} does not look like '{family}' weights: its keys begin {_first(keys)}.")
        return chosen
    for chosen in fitting:
        if chosen.recognize(keys):
            return chosen
    others = [f.name for f in FAMILIES.values() if f.recognize(keys)]
    # Names of our own that another family shares are ours when the model has them all.
    if _ours(model, keys) and (not others or keys <= set(model.state_dict())):
        return Family("actionprep", type(model), lambda _: True, unchanged, unchanged)
    raise UserError(
        f"{path} does not fit a {type(model).__name__}: "
        + (f"it looks like {' or '.join(others)} weights. " if others else f"its keys begin {_first(keys)}. ")
        + (
            f"Expected one of {', '.join(f.name for f in fitting)}."
            if fitting
            else "Only weights that it saved itself fit."
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
    """Bring tensors to the model's shapes, and say what could not be."""
    want = model.state_dict()
    if not any(name.startswith(_FRONT_END) for name in ours):
        # What stands before a published model is never in its file.
        want = {name: tensor for name, tensor in want.items() if not name.startswith(_FRONT_END)}
    use: State = {}
    fitted: list[Fitted] = []
    left_out: list[tuple[str, str]] = []
    wrong: list[str] = []
    extra = temporal_copies(model, ours)
    patches = ours.get("patch_embed.proj.weight")
    if isinstance(model, ViViT) and patches is not None and patches.ndim == 4 and source_grid is None:
        side = math.isqrt(ours["pos_embed"].shape[1]) if "pos_embed" in ours else 0
        source_grid = (1, side, side)
    for name, tensor in [*ours.items(), *extra.items()]:
        if name.startswith("?") or name not in want:
            left_out.append((name.removeprefix("?"), "no place in the model"))
            continue
        target = want[name]
        if tensor.shape == target.shape:
            use[name] = tensor
            if name in extra:
                shape = tuple(tensor.shape)
                fitted.append(Fitted(name, shape, shape, "copied from the attention over space"))
        elif name in family.head:
            left_out.append((name, f"{tensor.shape[0]} classes, the model has {target.shape[0]}"))
        elif isinstance(model, HeatmapMotionBERT) and name.startswith(_KEYPOINT_ENDS):
            left_out.append((name, "the file's tokens are keypoints, the model's are heatmaps"))
        elif (made := made_to_fit(model, name, tensor, target, source_grid)) is not None:
            use[name], how = made
            fitted.append(Fitted(name, tuple(tensor.shape), tuple(target.shape), how))
        else:
            wrong.append(
                f"{name} is {shape_text(tensor.shape)} in the file and {shape_text(target.shape)} in the model"
            )
    if wrong:
        raise UserError(
            f"{path} holds {family.name} weights of another size than the model: {'; '.join(_few(wrong, 3))}. Build "
            "the model with the sizes of the weights, or take weights of this size."
        )
    broken = [name for name, tensor in use.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if broken:
        raise UserError(
            f"{path} holds {family.name} weights that are no numbers (nan or infinite) in {len(broken)} of {len(use)} "
            f"tensors: {', '.join(_few(broken, 3))}. The training that wrote it came apart, or the file is damaged: take "
            "an earlier checkpoint, or download it again."
        )
    # Running figures of batch norms count as weights; their counters do not.
    fresh = tuple(name for name in want if name not in use and not name.endswith("num_batches_tracked"))
    report = LoadReport(family.name, str(path), tuple(use), tuple(fitted), fresh, tuple(left_out), color_order)
    expected = [name for name in want if name not in family.head]
    if sum(name in use for name in expected) * 2 < len(expected):
        raise UserError(
            f"{path} has only {len(use)} of the {len(want)} weights of this {type(model).__name__}, too few to be "
            f"meant for it.\n{report}"
        )
    return report, use


def _few(texts: Iterable[str], limit: int = 8) -> list[str]:
    texts = list(texts)
    return texts if len(texts) <= limit else [*texts[:limit], f"… and {len(texts) - limit} more"]


def _first(keys: set[str]) -> str:
    return ", ".join(sorted(keys)[:3])
