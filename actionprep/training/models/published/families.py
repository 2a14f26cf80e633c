"""Published checkpoint layouts: the model of each, how to recognize it, and how its keys map to ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from torch import nn

from actionprep.errors import UserError, nearest
from actionprep.training.models.heatmap_transformer import HeatmapTransformer
from actionprep.training.models.i3d import I3D
from actionprep.training.models.maaf import MultiViewTransformer
from actionprep.training.models.motionbert import MotionBERT
from actionprep.training.models.poseconv3d import PoseConv3D
from actionprep.training.models.published.key_maps import KeyMap, State, in_blocks
from actionprep.training.models.resizers import FrontEndI3D
from actionprep.training.models.timesformer import TimeSformer
from actionprep.training.models.track_lstm import TrackLstm
from actionprep.training.models.videomae import VideoMAE
from actionprep.training.models.vivit import ViViT


@dataclass(frozen=True)
class Family:
    """One published checkpoint layout.

    Attributes:
        name: Name of the layout.
        model: Model class that the weights are for.
        recognize: Whether a set of keys has this layout.
        to_ours: Convert a state dict to our keys.
        to_theirs: Convert a state dict to the published keys; None if there is no way back.
        head: Our names of the class head, which can differ in size.
        variant: Settings of the only model variant that such weights come from, where variants have the same weights.
        part: Prefix of our weights that such a file has, if it has only those of a part of the model.
        note: What a user must know when such a file is loaded.
    """

    name: str
    model: type[nn.Module]
    recognize: Callable[[set[str]], bool]
    to_ours: Callable[[State], State]
    to_theirs: Callable[[State], State] | None
    head: tuple[str, ...] = ("head.weight", "head.bias")
    variant: Mapping[str, bool] = field(default_factory=lambda: MappingProxyType({}))
    part: str = ""
    note: str = ""


_TIMESFORMER_HF = KeyMap(
    (
        ("timesformer.embeddings.cls_token", "cls_token"),
        ("timesformer.embeddings.position_embeddings", "pos_embed"),
        ("timesformer.embeddings.time_embeddings", "time_embed"),
        ("timesformer.embeddings.patch_embeddings.projection", "patch_embed.proj"),
        *in_blocks(
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
        *in_blocks(
            "videomae.encoder.layer.{i}",
            "blocks.{i}",
            {
                "attention.attention.query.weight": "attn.qkv#0.weight",
                "attention.attention.key.weight": "attn.qkv#1.weight",
                "attention.attention.value.weight": "attn.qkv#2.weight",
                "attention.attention.query.bias": "attn.q_bias",
                "attention.attention.value.bias": "attn.v_bias",
                # Names used by transformers before version 5.
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
        *in_blocks(
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
        # Names used by transformers before version 5 and by the files on the hub.
        *in_blocks(
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
_I3D_TINYVIRAT = KeyMap(
    (*((f"model.{name}", f"stages.{name}") for name in (*_STEM, *_MIXED)), ("logits.conv3d", "head"))
)
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

_FURNITURE_LSTM = KeyMap(
    (
        ("channel_attention.conv", "views.conv"),
        ("spatial_conv.intermediate_conv", "encoder.residual1"),
        ("spatial_conv.final_conv", "encoder.residual2"),
        ("spatial_conv.fc", "encoder.fc"),
        ("spatial_conv.initial_conv", "encoder"),
        ("lstm", "lstm"),
        ("fc_out", "head"),
    )
)
_FURNITURE_TRANSFORMER = KeyMap(
    (
        ("channel_attention.conv", "views.conv"),
        ("spatial_conv.dimensionality_reduction_cnn.conv1", "conv1"),
        ("spatial_conv.dimensionality_reduction_cnn.conv2", "conv2"),
        ("spatial_conv.dimensionality_reduction_cnn.fc1", "reduce"),
        ("transformer_encoder", "encoder"),
        ("fc_out", "head"),
    )
)
_FAITHFUL = MappingProxyType({"faithful": True})
_EARLY_POOL = MappingProxyType({"early_pool": True})


def unchanged(state: State) -> State:
    """Return the state dict as is, for layouts with our keys."""
    return state


def _timesformer_to_theirs(state: State) -> State:
    return {f"model.{key}": tensor for key, tensor in state.items()}


def _videomae_to_ours(state: State) -> State:
    # Pretraining files contain an encoder and a decoder; only the encoder is used.
    if not any(key.startswith("encoder.") for key in state):
        return state
    return {
        key.removeprefix("encoder.") if key.startswith("encoder.") else f"?{key}": tensor
        for key, tensor in state.items()
    }


def _videomae_hf_to_ours(state: State) -> State:
    # Trained with qkv_bias = False, as by the gesture study: a bias of zero.
    ours = _VIDEOMAE_HF.to_ours(state)
    if not any(key.endswith(".attn.q_bias") for key in ours):
        for key in [key for key in ours if key.endswith(".attn.qkv.weight") and not key.startswith("?")]:
            zeros = ours[key].new_zeros(len(ours[key]) // 3)
            stem = key.removesuffix("qkv.weight")
            ours |= {f"{stem}q_bias": zeros, f"{stem}v_bias": zeros.clone()}
    return ours


def _i3d_to_ours(mapping: KeyMap) -> Callable[[State], State]:
    def to_ours(state: State) -> State:
        # The original head is a 1 x 1 x 1 convolution.
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


def _heatmap_study_to_ours(state: State) -> State:
    # Theirs: a convolution over (time, joints) of channels that are flattened maps; ours: a linear layer of flattened
    # (time, map) values. Their embeddings have axes of length 1 for broadcasting.
    ours: State = {}
    for key, tensor in state.items():
        if key == "joints_embed.proj.weight" and tensor.ndim == 4 and tensor.shape[3] == 1:
            ours["embed.weight"] = tensor[..., 0].transpose(1, 2).flatten(1)
        elif key == "joints_embed.proj.bias":
            ours["embed.bias"] = tensor
        elif key == "temp_embed" and tensor.ndim == 4:
            ours["time_embed"] = tensor[0, :, 0]
        elif key == "pos_embed" and tensor.ndim == 4:
            ours["joint_embed"] = tensor[0, 0]
        elif key.startswith("head.fc."):
            ours[key.replace("head.fc.", "head.")] = tensor
        elif key.startswith(("blocks.", "norm.")):
            ours[key] = tensor
        else:
            ours[f"?{key}"] = tensor
    return ours


def _resizer_to_ours(state: State) -> State:
    return {f"front.{key}": tensor for key, tensor in state.items()}


def _resizer_to_theirs(state: State) -> State:
    return {key.removeprefix("front."): tensor for key, tensor in state.items() if key.startswith("front.")}


def _is_resizer(keys: set[str]) -> bool:
    # Resizers with a spatial transformer inside have the same keys and more; ours computes its maps in another way.
    return {"c1.conv3d.weight", "c4.conv3d.weight"} <= keys and not any(key.startswith("fc_loc.") for key in keys)


_IMAGE_KEYS = ("patch_embed.proj.weight", "blocks.0.attn.qkv.weight", "blocks.0.mlp.fc1.weight", "cls_token")
FAMILIES: dict[str, Family] = {
    f.name: f
    for f in (
        Family(
            "timesformer",
            TimeSformer,
            lambda keys: "time_embed" in keys and "blocks.0.attn.qkv.weight" in keys,
            unchanged,
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
            unchanged,
            None,
        ),
        Family(
            "videomae",
            VideoMAE,
            lambda keys: any(key.endswith("blocks.0.attn.q_bias") for key in keys),
            _videomae_to_ours,
            unchanged,
        ),
        Family(
            "videomae-transformers",
            VideoMAE,
            lambda keys: any(key.startswith("videomae.encoder.layer.") for key in keys),
            _videomae_hf_to_ours,
            _VIDEOMAE_HF.to_theirs,
        ),
        Family(
            "vivit-transformers",
            ViViT,
            lambda keys: any(key.startswith(("vivit.layers.", "vivit.encoder.layer.")) for key in keys),
            _VIVIT_HF.to_ours,
            _VIVIT_HF.to_theirs,
        ),
        Family("vivit-image-vit", ViViT, lambda keys: all(key in keys for key in _IMAGE_KEYS), unchanged, None),
        Family(
            "i3d",
            I3D,
            lambda keys: "Conv3d_1a_7x7.conv3d.weight" in keys,
            _i3d_to_ours(_I3D),
            _i3d_to_theirs(_I3D),
            variant=_EARLY_POOL,
        ),
        Family(
            "i3d-tinyvirat",
            I3D,
            lambda keys: "model.Conv3d_1a_7x7.conv3d.weight" in keys,
            _i3d_to_ours(_I3D_TINYVIRAT),
            _i3d_to_theirs(_I3D_TINYVIRAT),
            note="The file does not state if it was trained at 112 or 224 pixels. For 224, set sizes.early_pool = true.",
        ),
        Family(
            "i3d-kinetics",
            I3D,
            lambda keys: "conv3d_1a_7x7.conv3d.weight" in keys,
            _i3d_to_ours(_I3D_KINETICS),
            _i3d_to_theirs(_I3D_KINETICS),
            variant=_EARLY_POOL,
        ),
        Family(
            "resizer",
            FrontEndI3D,
            _is_resizer,
            _resizer_to_ours,
            _resizer_to_theirs,
            part="front.",
            note="The file has only the resizer. The I3D after it keeps its weights; load those from another file.",
        ),
        Family(
            "furniture-lstm",
            TrackLstm,
            lambda keys: {"channel_attention.conv.weight", "lstm.weight_ih_l0"} <= keys,
            _FURNITURE_LSTM.to_ours,
            _FURNITURE_LSTM.to_theirs,
            variant=_FAITHFUL,
        ),
        Family(
            "furniture-transformer",
            MultiViewTransformer,
            lambda keys: "spatial_conv.dimensionality_reduction_cnn.conv1.weight" in keys,
            _FURNITURE_TRANSFORMER.to_ours,
            _FURNITURE_TRANSFORMER.to_theirs,
            variant=_FAITHFUL,
        ),
        Family(
            "heatmap-study",
            HeatmapTransformer,
            lambda keys: {"joints_embed.proj.weight", "temp_embed", "head.fc.weight"} <= keys,
            _heatmap_study_to_ours,
            None,
        ),
        Family(
            "motionbert",
            MotionBERT,
            lambda keys: any(key.endswith("blocks_st.0.attn_s.qkv.weight") for key in keys),
            _motionbert_to_ours,
            unchanged,
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


def find_family(family: str) -> Family:
    """Return the checkpoint family with this name.

    Raises:
        UserError: If there is none; the message lists all families.
    """
    if family not in FAMILIES:
        raise UserError(
            f"No checkpoint family '{family}'.{nearest(family, FAMILIES)} Available families: {', '.join(FAMILIES)}."
        )
    return FAMILIES[family]
