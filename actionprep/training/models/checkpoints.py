"""Published weights into our models and back: explicit key maps, fitted positions, a report of what did not match."""

from __future__ import annotations

import argparse
import math
import pickle
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from actionprep.errors import EnvironmentProblem, UserError, nearest
from actionprep.training.models.i3d import I3D
from actionprep.training.models.motionbert import HeatmapMotionBERT, MotionBERT
from actionprep.training.models.pixels import bare
from actionprep.training.models.poseconv3d import PoseConv3D
from actionprep.training.models.timesformer import TimeSformer
from actionprep.training.models.tokens import resize_space, resize_space_time, resize_time
from actionprep.training.models.videomae import VideoMAE
from actionprep.training.models.vivit import ViViT

State = dict[str, Tensor]


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
            for text in _few([f"{f.name}: {_shape(f.was)} → {_shape(f.now)}, {f.how}" for f in self.fitted])
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
    family: one of FAMILIES, or None to recognise it by its keys.
    strict: refuse weights that leave anything but the class head fresh.
    source_grid: tubelets (time, rows, columns) that a ViViT position table was made for, where that cannot be told.
    echo: what prints the report; None prints nothing.

    Nothing is unpickled but tensors and plain containers. Raises UserError, with the model untouched, for a file that
    is no checkpoint, of another family or of another size.
    """
    path = Path(path)
    content = _read(path)
    state = _unwrap(content, path)
    chosen = _family(model, state, family, path)
    ours = chosen.to_ours(state)
    report, fitted = _fit(model, ours, chosen, path, source_grid, _colors(content))
    if strict and any(not _is_head(name, chosen) for name in report.fresh):
        raise UserError(f"{path} does not have every weight of the model, and strict loading was asked for.\n{report}")
    model.load_state_dict(fitted, strict=False)
    if echo is not None:
        echo(str(report))
    return report


def published_state(model: nn.Module, *, family: str) -> State:
    """The model's weights under the keys of a published family, for other people's code.

    A model that stands behind what turns stored bytes into its values is written without that.

    Raises UserError where the family has no way back or is another model's.
    """
    chosen, model = _named(family), bare(model)
    if not isinstance(model, chosen.model) or chosen.to_theirs is None:
        raise UserError(
            f"A {type(model).__name__} cannot be written as '{family}'. Families that it can be written as: "
            + (", ".join(f.name for f in FAMILIES.values() if isinstance(model, f.model) and f.to_theirs) or "none")
            + "."
        )
    return chosen.to_theirs(dict(model.state_dict()))


@dataclass(frozen=True)
class KeyMap:
    """Names of weights in two layouts.

    rules: (theirs, ours) pairs, matched in order against whole keys or their beginnings up to a dot; `{i}` is any
           number.
    `#0`, `#1`, `#2` behind a name of ours say that theirs is that third of it (query, key, value).
    """

    rules: tuple[tuple[str, str], ...]

    def to_ours(self, state: State) -> State:
        """Rename and join; what no rule names keeps its name behind a question mark."""
        renamed: State = {}
        parts: dict[str, dict[int, Tensor]] = {}
        for key, tensor in state.items():
            name = self._rename(key, 0, 1)
            stem, _, third = name.partition("#")
            if third:
                index, _, rest = third.partition(".")
                parts.setdefault(f"{stem}.{rest}", {})[int(index)] = tensor
            else:
                renamed[name] = tensor
        for name, thirds in parts.items():
            if len(thirds) == 3:
                renamed[name] = torch.cat([thirds[i] for i in range(3)])
            else:
                renamed[f"?{name}"] = torch.cat(list(thirds.values()))
        return renamed

    def to_theirs(self, state: State) -> State:
        """The way back: rename and split."""
        renamed: State = {}
        for key, tensor in state.items():
            thirds = [self._rename(_third(key, i), 1, 0) for i in range(3)]
            if not any(name.startswith("?") or "#" in name for name in thirds):
                renamed.update(zip(thirds, tensor.chunk(3), strict=True))
            else:
                name = self._rename(key, 1, 0)
                if not name.startswith("?"):
                    renamed[name] = tensor
        return renamed

    def _rename(self, key: str, source: int, to: int) -> str:
        for rule in self.rules:
            pattern, replacement = rule[source], rule[to]
            found = re.fullmatch(re.escape(pattern).replace(r"\{i\}", r"(\d+)") + r"(\..*)?", key)
            if found is None:
                continue
            *numbers, rest = found.groups()
            for number in numbers:
                replacement = replacement.replace("{i}", number, 1)
            return replacement + (rest or "")
        return f"?{key}"


@dataclass(frozen=True)
class Family:
    """One published layout of weights: the model, how to know it, and the ways between its keys and our own."""

    name: str
    model: type[nn.Module]
    recognise: Callable[[set[str]], bool]
    to_ours: Callable[[State], State]
    to_theirs: Callable[[State], State] | None
    head: tuple[str, ...] = ("head.weight", "head.bias")


def _blocks(theirs: str, ours: str, pairs: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple((f"{theirs}.{a}", f"{ours}.{b}") for a, b in pairs.items())


_TIMESFORMER_HF = KeyMap(
    (
        ("timesformer.embeddings.cls_token", "cls_token"),
        ("timesformer.embeddings.position_embeddings", "pos_embed"),
        ("timesformer.embeddings.time_embeddings", "time_embed"),
        ("timesformer.embeddings.patch_embeddings.projection", "patch_embed.proj"),
        *_blocks(
            "timesformer.encoder.layer.{i}",
            "blocks.{i}",
            {
                "attention.attention.qkv": "attn.qkv",
                "attention.output.dense": "attn.proj",
                "temporal_attention.attention.qkv": "temporal_attn.qkv",
                "temporal_attention.output.dense": "temporal_attn.proj",
                "temporal_layernorm": "temporal_norm1",
                "temporal_dense": "temporal_fc",
                "layernorm_before": "norm1",
                "layernorm_after": "norm2",
                "intermediate.dense": "mlp.fc1",
                "output.dense": "mlp.fc2",
            },
        ),
        ("timesformer.layernorm", "norm"),
        ("classifier", "head"),
    )
)
_VIDEOMAE_HF = KeyMap(
    (
        ("videomae.embeddings.patch_embeddings.projection", "patch_embed.proj"),
        *_blocks(
            "videomae.encoder.layer.{i}",
            "blocks.{i}",
            {
                "attention.attention.query.weight": "attn.qkv#0.weight",
                "attention.attention.key.weight": "attn.qkv#1.weight",
                "attention.attention.value.weight": "attn.qkv#2.weight",
                "attention.attention.query.bias": "attn.q_bias",
                "attention.attention.value.bias": "attn.v_bias",
                # As transformers saved them before its version 5.
                "attention.attention.q_bias": "attn.q_bias",
                "attention.attention.v_bias": "attn.v_bias",
                "attention.output.dense": "attn.proj",
                "layernorm_before": "norm1",
                "layernorm_after": "norm2",
                "intermediate.dense": "mlp.fc1",
                "output.dense": "mlp.fc2",
            },
        ),
        ("fc_norm", "fc_norm"),
        ("classifier", "head"),
    )
)
_VIVIT_HF = KeyMap(
    (
        ("vivit.embeddings.cls_token", "cls_token"),
        ("vivit.embeddings.position_embeddings", "pos_embed"),
        ("vivit.embeddings.patch_embeddings.projection", "patch_embed.proj"),
        *_blocks(
            "vivit.layers.{i}",
            "blocks.{i}",
            {
                "attention.q_proj": "attn.qkv#0",
                "attention.k_proj": "attn.qkv#1",
                "attention.v_proj": "attn.qkv#2",
                "attention.o_proj": "attn.proj",
                "layernorm_before": "norm1",
                "layernorm_after": "norm2",
                "mlp.fc1": "mlp.fc1",
                "mlp.fc2": "mlp.fc2",
            },
        ),
        # As transformers saved them before its version 5, and as the hub has them.
        *_blocks(
            "vivit.encoder.layer.{i}",
            "blocks.{i}",
            {
                "attention.attention.query": "attn.qkv#0",
                "attention.attention.key": "attn.qkv#1",
                "attention.attention.value": "attn.qkv#2",
                "attention.output.dense": "attn.proj",
                "layernorm_before": "norm1",
                "layernorm_after": "norm2",
                "intermediate.dense": "mlp.fc1",
                "output.dense": "mlp.fc2",
            },
        ),
        ("vivit.layernorm", "norm"),
        ("classifier", "head"),
    )
)
_STEM = ("Conv3d_1a_7x7", "Conv3d_2b_1x1", "Conv3d_2c_3x3")
_MIXED = tuple(f"Mixed_{stage}" for stage in ("3b", "3c", "4b", "4c", "4d", "4e", "4f", "5b", "5c"))
_BRANCHES = {
    "b0": "branch_0",
    "b1a": "branch_1.0",
    "b1b": "branch_1.1",
    "b2a": "branch_2.0",
    "b2b": "branch_2.1",
    "b3b": "branch_3.1",
}
_I3D = KeyMap((*((name, f"stages.{name}") for name in (*_STEM, *_MIXED)), ("logits.conv3d", "head")))
_I3D_KINETICS = KeyMap(
    (
        *(
            (f"{name.lower()}.{part}", f"stages.{name}.{ours}")
            for name in _STEM
            for part, ours in (("conv3d", "conv3d"), ("batch3d", "bn"))
        ),
        *(
            (f"{name.lower()}.{branch}.{part}", f"stages.{name}.{unit}.{ours}")
            for name in _MIXED
            for unit, branch in _BRANCHES.items()
            for part, ours in (("conv3d", "conv3d"), ("batch3d", "bn"))
        ),
        ("conv3d_0c_1x1.conv3d", "head"),
    )
)
_PYSKL = KeyMap(
    (
        ("backbone.conv1", "conv1"),
        *((f"backbone.layer{i + 1}", f"stages.{i}") for i in range(4)),
        ("cls_head.fc_cls", "head"),
    )
)


def _same(state: State) -> State:
    return state


def _timesformer_to_theirs(state: State) -> State:
    return {f"model.{key}": tensor for key, tensor in state.items()}


def _videomae_to_ours(state: State) -> State:
    # Pretraining files hold encoder and decoder; only the encoder has a place here.
    if not any(key.startswith("encoder.") for key in state):
        return state
    return {
        key.removeprefix("encoder.") if key.startswith("encoder.") else f"?{key}": tensor
        for key, tensor in state.items()
    }


def _i3d_to_ours(mapping: KeyMap) -> Callable[[State], State]:
    def to_ours(state: State) -> State:
        # The head of the original is a 1 x 1 x 1 convolution.
        ours = mapping.to_ours(state)
        return {k: t.flatten(1) if k == "head.weight" else t for k, t in ours.items()}

    return to_ours


def _i3d_to_theirs(mapping: KeyMap) -> Callable[[State], State]:
    def to_theirs(state: State) -> State:
        return mapping.to_theirs({k: t[:, :, None, None, None] if k == "head.weight" else t for k, t in state.items()})

    return to_theirs


def _motionbert_to_ours(state: State) -> State:
    if any(key.startswith("backbone.") for key in state):
        return state
    return {f"backbone.{key}": tensor for key, tensor in state.items()}


# What turns keypoints into tokens and back; heatmap tokens need their own.
_KEYPOINT_ENDS = ("backbone.joints_embed.", "backbone.head.")
_FRONT_END = "front."
_IMAGE_KEYS = ("patch_embed.proj.weight", "blocks.0.attn.qkv.weight", "blocks.0.mlp.fc1.weight", "cls_token")

FAMILIES: dict[str, Family] = {
    f.name: f
    for f in (
        Family(
            "timesformer",
            TimeSformer,
            lambda keys: "time_embed" in keys and "blocks.0.attn.qkv.weight" in keys,
            _same,
            _timesformer_to_theirs,
        ),
        Family(
            "timesformer-transformers",
            TimeSformer,
            lambda keys: any(key.startswith("timesformer.encoder.layer.") for key in keys),
            _TIMESFORMER_HF.to_ours,
            _TIMESFORMER_HF.to_theirs,
        ),
        Family(
            "image-vit",
            TimeSformer,
            lambda keys: "time_embed" not in keys and all(key in keys for key in _IMAGE_KEYS),
            _same,
            None,
        ),
        Family(
            "videomae",
            VideoMAE,
            lambda keys: any(key.endswith("blocks.0.attn.q_bias") for key in keys),
            _videomae_to_ours,
            _same,
        ),
        Family(
            "videomae-transformers",
            VideoMAE,
            lambda keys: any(key.startswith("videomae.encoder.layer.") for key in keys),
            _VIDEOMAE_HF.to_ours,
            _VIDEOMAE_HF.to_theirs,
        ),
        Family(
            "vivit-transformers",
            ViViT,
            lambda keys: any(key.startswith(("vivit.layers.", "vivit.encoder.layer.")) for key in keys),
            _VIVIT_HF.to_ours,
            _VIVIT_HF.to_theirs,
        ),
        Family("vivit-image-vit", ViViT, lambda keys: all(key in keys for key in _IMAGE_KEYS), _same, None),
        Family(
            "i3d",
            I3D,
            lambda keys: "Conv3d_1a_7x7.conv3d.weight" in keys,
            _i3d_to_ours(_I3D),
            _i3d_to_theirs(_I3D),
        ),
        Family(
            "i3d-kinetics",
            I3D,
            lambda keys: "conv3d_1a_7x7.conv3d.weight" in keys,
            _i3d_to_ours(_I3D_KINETICS),
            _i3d_to_theirs(_I3D_KINETICS),
        ),
        Family(
            "motionbert",
            MotionBERT,
            lambda keys: any(key.endswith("blocks_st.0.attn_s.qkv.weight") for key in keys),
            _motionbert_to_ours,
            _same,
            ("head.fc2.weight", "head.fc2.bias"),
        ),
        Family(
            "poseconv3d",
            PoseConv3D,
            lambda keys: "backbone.layer1.0.conv1.conv.weight" in keys,
            _PYSKL.to_ours,
            _PYSKL.to_theirs,
        ),
    )
}


def _read(path: Path) -> Any:
    """What the file holds, without running anything that it brings along."""
    if path.is_dir():
        found = [path / name for name in ("model.safetensors", "pytorch_model.bin") if (path / name).is_file()]
        if not found:
            raise UserError(
                f"The folder {path} holds no weights: neither model.safetensors nor pytorch_model.bin is in it. Name "
                "the file."
            )
        path = found[0]
    if not path.is_file():
        raise UserError(f"There is no checkpoint at {path}. Check the path, or download the weights to it.")
    if path.suffix == ".safetensors":
        try:
            from safetensors import SafetensorError
            from safetensors.torch import load_file
        except ImportError:
            raise EnvironmentProblem(
                f"{path} is in the safetensors format, and the package safetensors is not installed. Install it with "
                "pip install safetensors (the extra actionprep[hf] brings it), or convert the file to .pt."
            ) from None
        try:
            return load_file(path)
        except SafetensorError as error:
            raise UserError(f"{path} cannot be read as safetensors: {error}. Download it again.") from None
    try:
        # Trainers leave their command line beside the weights, as VideoMAE's does: a name with values, which runs nothing.
        with torch.serialization.safe_globals([*_numpy_numbers(), argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"{path} holds more than tensors and plain values, or is no checkpoint, and is not opened because doing "
            f"so could run code ({reason}). Ask its maker for a file of weights "
            "alone, or save its state dict anew where you trust it."
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{path} cannot be read as a PyTorch checkpoint: {reason}. Download it again.") from None


def _numpy_numbers() -> list[Any]:
    """The numpy scalars that trainers leave beside their weights (a best loss, a learning rate); plain data."""
    import numpy as np

    kinds = [type(np.dtype(kind)) for kind in (np.float64, np.float32, np.int64, np.int32, np.bool_)]
    scalar = np.float64(0).__reduce__()[0]
    # Files written with numpy 1 name the same function by its former address.
    return [scalar, (scalar, "numpy.core.multiarray.scalar"), np.dtype, *kinds]


def _unwrap(content: Any, path: Path) -> State:
    """The state dict inside a checkpoint, without the prefixes of wrappers."""
    for name in ("model_state", "model_pos", "state_dict", "module", "model"):
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
    state = {str(k): v for k, v in content.items() if isinstance(v, Tensor)} if isinstance(content, dict) else {}
    if not state:
        found = ", ".join(map(str, list(content)[:5])) if isinstance(content, dict) else type(content).__name__
        raise UserError(
            f"{path} holds no weights: a dictionary of named tensors was expected, and it holds {found or 'nothing'}."
        )
    for prefix in ("module.", "model.", "_orig_mod."):
        # I3D's own layout has the prefix on all but the head.
        if sum(key.startswith(prefix) for key in state) > len(state) // 2:
            state = {key.removeprefix(prefix): tensor for key, tensor in state.items()}
    return state


def _colors(content: Any) -> Literal["RGB", "BGR"] | None:
    """Official TimeSformer files carry their configuration; those of Something-Something V2 saw BGR frames."""
    cfg = content.get("cfg") if isinstance(content, dict) else None
    if not isinstance(cfg, str):
        return None
    data = re.search(r"DATASET:\s*['\"]?(\w+)", cfg)
    if data is None:
        return None
    return "BGR" if data.group(1).lower() == "ssv2" else "RGB"


def _named(family: str) -> Family:
    if family not in FAMILIES:
        raise UserError(
            f"There is no checkpoint family '{family}'.{nearest(family, FAMILIES)} Families: {', '.join(FAMILIES)}."
        )
    return FAMILIES[family]


def _family(model: nn.Module, state: State, family: str | None, path: Path) -> Family:
    keys = set(state)
    fitting = [f for f in FAMILIES.values() if isinstance(model, f.model)]
    if family is not None:
        chosen = _named(family)
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
        if not chosen.recognise(keys) and not _ours(model, keys):
            raise UserError(f"{path} does not look like '{family}' weights: its keys begin {_first(keys)}.")
        return chosen
    for chosen in fitting:
        if chosen.recognise(keys):
            return chosen
    others = [f.name for f in FAMILIES.values() if f.recognise(keys)]
    # Names of our own that another family shares are ours when the model has them all.
    if _ours(model, keys) and (not others or keys <= set(model.state_dict())):
        return Family("actionprep", type(model), lambda _: True, _same, _same)
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
    extra = _temporal_copies(model, ours)
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
        elif _is_head(name, family):
            left_out.append((name, f"{tensor.shape[0]} classes, the model has {target.shape[0]}"))
        elif isinstance(model, HeatmapMotionBERT) and name.startswith(_KEYPOINT_ENDS):
            left_out.append((name, "the file's tokens are keypoints, the model's are heatmaps"))
        elif (made := _made_to_fit(model, name, tensor, target, source_grid)) is not None:
            use[name], how = made
            fitted.append(Fitted(name, tuple(tensor.shape), tuple(target.shape), how))
        else:
            wrong.append(f"{name} is {_shape(tensor.shape)} in the file and {_shape(target.shape)} in the model")
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
    expected = [name for name in want if not _is_head(name, family)]
    if sum(name in use for name in expected) * 2 < len(expected):
        raise UserError(
            f"{path} has only {len(use)} of the {len(want)} weights of this {type(model).__name__}, too few to be "
            f"meant for it.\n{report}"
        )
    return report, use


def _temporal_copies(model: nn.Module, ours: State) -> State:
    """For weights without attention over time: that over space, as a start for it."""
    if not isinstance(model, TimeSformer) or model.attention != "divided":
        return {}
    if any(".temporal_attn." in name for name in ours):
        return {}
    copies: State = {}
    for name, tensor in ours.items():
        for space, time in ((".attn.", ".temporal_attn."), (".norm1.", ".temporal_norm1.")):
            if space in name:
                copies[name.replace(space, time)] = tensor
    return copies


def _made_to_fit(
    model: nn.Module, name: str, tensor: Tensor, target: Tensor, source_grid: tuple[int, int, int] | None
) -> tuple[Tensor, str] | None:
    """A tensor of another shape brought to the target's, and how; None where there is no honest way."""
    if name == "patch_embed.proj.weight":
        return _fitted_patches(tensor, target)
    if tensor.shape[-1] != target.shape[-1]:
        return None
    if name == "pos_embed" and isinstance(model, TimeSformer):
        side = math.isqrt(tensor.shape[1] - 1)
        if side * side != tensor.shape[1] - 1:
            return None
        grid = resize_space(tensor[0, 1:].unflatten(0, (side, side)), model.grid)
        table = torch.cat([tensor[:, :1], grid.flatten(0, 1)[None]], 1)
        return table, f"{side} x {side} → {_shape(model.grid)} patches, bicubic"
    if name == "pos_embed" and isinstance(model, ViViT):
        return _fitted_vivit_positions(model, tensor, target, source_grid)
    if name == "time_embed":
        return resize_time(tensor[0], target.shape[1])[None], "linear in time"
    if name.endswith("temp_embed"):
        frames = target.shape[1]
        if frames <= tensor.shape[1]:
            return tensor[:, :frames], "its beginning, which is what shorter clips were trained with"
        return resize_time(tensor[0], frames)[None], "linear in time"
    return None


def _fitted_patches(tensor: Tensor, target: Tensor) -> tuple[Tensor, str] | None:
    """Patch projections with other input channels, or of pictures where the model wants tubelets."""
    how = []
    if tensor.ndim == 4 and target.ndim == 5:
        # The central frame carries the picture's weights and its neighbours nothing: the clip starts as its middle
        # pictures.
        inflated = tensor.new_zeros(*tensor.shape[:2], target.shape[2], *tensor.shape[2:])
        inflated[:, :, target.shape[2] // 2] = tensor
        tensor = inflated
        how.append("the picture's weights at the tubelet's central frame")
    channels, wanted = tensor.shape[1], target.shape[1]
    if channels == 3 and wanted == 1:
        tensor = tensor.sum(1, keepdim=True)
        how.append("summed over RGB")
    elif channels == 3 and wanted != 3:
        repeats = -(-wanted // 3)
        tensor = tensor.repeat(1, repeats, *(1,) * (tensor.ndim - 2))[:, :wanted] * (3 / wanted)
        how.append(f"RGB repeated over {wanted} channels and scaled by 3/{wanted}")
    return (tensor, "; ".join(how)) if tensor.shape == target.shape and how else None


def _fitted_vivit_positions(
    model: ViViT, tensor: Tensor, target: Tensor, source_grid: tuple[int, int, int] | None
) -> tuple[Tensor, str] | None:
    """A table of another tubelet grid, or of a picture, which every time step then shares."""
    extra = 0 if model.cls_token is None else 1
    places = tensor.shape[1] - extra
    steps, rows, columns = model.grid
    if source_grid is not None:
        grid = source_grid
    elif places % (rows * columns) == 0 and places > rows * columns:
        grid = (places // (rows * columns), rows, columns)
    elif places % steps == 0 and math.isqrt(places // steps) ** 2 == places // steps:
        grid = (steps, math.isqrt(places // steps), math.isqrt(places // steps))
    else:
        return None
    if math.prod(grid) != places:
        raise UserError(
            f"source_grid {grid} is {math.prod(grid)} tubelets, and the position table in the file has {places}."
        )
    table = resize_space_time(tensor[0, extra:].unflatten(0, grid), model.grid)
    return (
        torch.cat([tensor[:, :extra], table.flatten(0, 2)[None]], 1),
        f"{_shape(grid)} → {_shape(model.grid)} tubelets, bicubic in space and linear in time",
    )


def _is_head(name: str, family: Family) -> bool:
    return name in family.head


def _third(key: str, index: int) -> str:
    stem, dot, rest = key.rpartition(".")
    return f"{stem}#{index}{dot}{rest}"


def _shape(shape: Iterable[int]) -> str:
    return " x ".join(map(str, shape))


def _few(texts: Iterable[str], limit: int = 8) -> list[str]:
    texts = list(texts)
    return texts if len(texts) <= limit else [*texts[:limit], f"… and {len(texts) - limit} more"]


def _first(keys: set[str]) -> str:
    return ", ".join(sorted(keys)[:3])
