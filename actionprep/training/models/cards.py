"""The table rows of the published models and of ours on tracks and pictures (imports no torch)."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from actionprep.training.models.registry import HALF, IMAGENET, SIGNED, ModelCard, axes, register

_HERE = "actionprep.training.models"
_FURNITURE = "baturalpguven/AI-Driven-Furniture-Assembly-Tracking-System"
_HEATMAP_STUDY = "woringer404v/MotionBERT (heatmap study)"
_TINYVIRAT = "abhay3010/pytorch-i3d (TinyVIRAT study)"
_TIMESFORMER_FAULTS = (
    "16- and 96-frame weights load: the frame count is an ordinary argument",
    "positions are interpolated in 2D and in time, not by nearest neighbor over the flattened grid",
    "weights trained on BGR frames (Something-Something V2) are recognized as such",
)
_VIVIT_FAULTS = ("the MLP's second layer has no activation, so the residual stream may shrink again",)
_RESIZER_FAULTS = (
    "colors are RGB, as the pretrained weights expect",
    "any clip length and size, without a mode string",
)
_MOTIONBERT_FAULTS = (
    "absent persons do not enter the mean over persons",
    "any number of persons",
    "padded frames are masked",
)


def _timesformer(name: str, shape: str, num_classes: int, parameters: int, source: str, **sizes: Any) -> None:
    register(
        ModelCard(
            name,
            "frames",
            axes(shape),
            num_classes,
            parameters,
            source,
            f"{_HERE}.timesformer:TimeSformer",
            MappingProxyType(sizes),
            HALF,
            _TIMESFORMER_FAULTS,
        )
    )


_ICML = "Bertasius et al., ICML 2021 (facebookresearch/TimeSformer)"
_timesformer("timesformer", "C3 T8 H224 W224", 400, 121_566_352, _ICML)
_timesformer("timesformer-hr", "C3 T16 H448 W448", 400, 122_024_080, _ICML, num_frames=16, image_size=448)
_timesformer("timesformer-l", "C3 T96 H224 W224", 400, 121_633_936, _ICML, num_frames=96)
_timesformer("timesformer-joint", "C3 T8 H224 W224", 400, 86_112_400, _ICML, attention="joint")
_timesformer("timesformer-space", "C3 T8 H224 W224", 400, 86_106_256, _ICML, attention="space")
_timesformer(
    "timesformer-light",
    "C3 T32 H224 W224",
    12,
    121_286_412,
    "DoVuongLoc2642/TimeSformer (wrist-camera gestures): 32 frames spread over the whole clip, anchored crop",
    num_frames=32,
)

register(
    ModelCard(
        "videomae",
        "frames",
        axes("C3 T16 H224 W224"),
        400,
        86_534_800,
        "Tong et al., NeurIPS 2022 (MCG-NJU/VideoMAE, base)",
        f"{_HERE}.videomae:VideoMAE",
        pixels=IMAGENET,
        faults_fixed=(
            "any frame count: the position table is interpolated",
            "no frame of an odd count is lost",
            "query and value biases are kept",
            "the normalization that the weights expect is declared",
        ),
    )
)

register(
    ModelCard(
        "vivit-frames",
        "frames",
        axes("C3 T32 H224 W224"),
        400,
        88_954_000,
        "Arnab et al., ICCV 2021, model 1 (google/vivit-b-16x2)",
        f"{_HERE}.vivit:ViViT",
        MappingProxyType(
            {
                "in_channels": 3,
                "num_frames": 32,
                "image_size": 224,
                "tubelet": (2, 16, 16),
                "width": 768,
                "depth": 12,
                "heads": 12,
                "pool": "cls",
                "activation": "gelu_tanh",
                "attention_dropout": 0.0,
            }
        ),
        SIGNED,
        ("any frame count and size: positions are interpolated in space and time",),
    )
)
for _name, _parameters, _sizes in (
    ("vivit-1", 8_650_300, {}),
    ("vivit-1-big", 63_699_516, {"width": 768}),
    ("vivit-1-small-tube", 7_623_996, {"tubelet": (4, 8, 8)}),
):
    register(
        ModelCard(
            _name,
            "heatmaps",
            axes("K17 T56 H56 W56"),
            60,
            _parameters,
            f"Arnab et al., ICCV 2021, model 1; {_HEATMAP_STUDY}",
            f"{_HERE}.vivit:ViViT",
            MappingProxyType(_sizes),
            faults_fixed=_VIVIT_FAULTS,
        )
    )
register(
    ModelCard(
        "vivit-2",
        "heatmaps",
        axes("K17 T56 H56 W56"),
        60,
        44_414_012,
        f"Arnab et al., ICCV 2021, model 2; {_HEATMAP_STUDY}",
        f"{_HERE}.vivit:FactorisedViViT",
        faults_fixed=("it is factorised: the first stack sees one time step at a time, the second the steps",),
    )
)
register(
    ModelCard(
        "vivit-2-published",
        "heatmaps",
        axes("K17 T56 H56 W56"),
        60,
        44_414_012,
        f"{_HEATMAP_STUDY}, as published: all tokens attend to all in 16 layers",
        f"{_HERE}.vivit:FactorisedViViT",
        MappingProxyType({"factorised": False}),
    )
)

for _name, _parameters, _sizes in (
    ("heatmap-transformer", 9_552_956, {}),
    ("heatmap-transformer-big", 94_758_972, {"width": 768, "depth": 12, "heads": 12}),
):
    register(
        ModelCard(
            _name,
            "heatmaps",
            axes("K17 T48 H56 W56"),
            60,
            _parameters,
            f"{_HEATMAP_STUDY}, after Mao et al., ICCV 2023 (MAMP)",
            f"{_HERE}.heatmap_transformer:HeatmapTransformer",
            MappingProxyType(_sizes),
            faults_fixed=(
                "padded frames are masked",
                "any number of frames: the time embedding is interpolated",
                "temporal shift is left to the recipe, where it shifts time and not joints",
            ),
        )
    )

register(
    ModelCard(
        "motionbert",
        "pose",
        axes("M2 T243 K17 C3"),
        60,
        60_421_193,
        "Zhu et al., ICCV 2023 (Walter0807/MotionBERT, action)",
        f"{_HERE}.motionbert:MotionBERT",
        faults_fixed=_MOTIONBERT_FAULTS,
    )
)
register(
    ModelCard(
        "motionbert-heatmap",
        "heatmaps",
        axes("K17 T48 H56 W56"),
        60,
        63_532_678,
        _HEATMAP_STUDY,
        f"{_HERE}.motionbert:HeatmapMotionBERT",
        faults_fixed=(
            *_MOTIONBERT_FAULTS,
            "any number of frames (the published script asks for 120 where 48 are allowed)",
            "persons may keep a volume each",
        ),
        passes_on=f"{_HERE}.motionbert:MotionBERT",
        persons_apart=True,
    )
)

register(
    ModelCard(
        "poseconv3d",
        "heatmaps",
        axes("K17 T48 H56 W56"),
        60,
        2_024_860,
        "Duan et al., CVPR 2022 (kennymckormick/pyskl, SlowOnly-R50)",
        f"{_HERE}.poseconv3d:PoseConv3D",
    )
)

register(
    ModelCard(
        "view-transformer",
        "tracks",
        axes("T32 V1 N256 C2"),
        5,
        None,
        "ours: points spread to pictures of flow, tokens of views and instants",
        f"{_HERE}.tracks:ViewTransformer",
    )
)
register(
    ModelCard(
        "view-transformer-maaf",
        "tracks",
        axes("T50 V4 N500 C2"),
        6,
        48_454_285,
        f"{_FURNITURE}, transformer",
        f"{_HERE}.maaf:MultiViewTransformer",
        faults_fixed=(
            "real points in place of one repeated padding point; padding is masked",
            "time is encoded and every step is read, not the last one alone",
            "x and y are weighted apart, and not in raw pixels",
            "batches of clips of unequal length",
        ),
    )
)
_LSTM_FAULTS = (
    "invalid points are masked and coordinates normalized",
    "x and y are weighted apart by the view attention",
    "a recording's end is a mask, not a frame of zeros",
    "batches of any size",
)
register(
    ModelCard(
        "track-lstm",
        "tracks",
        axes("T10 V8 N400 C2"),
        7,
        16_264_714,
        f"{_FURNITURE}, LSTM",
        f"{_HERE}.track_lstm:TrackLstm",
        faults_fixed=_LSTM_FAULTS,
        labels_frames="always",
        keeps_state=True,
    )
)
register(
    ModelCard(
        "track-cnn-lstm",
        "tracks",
        axes("T10 V8 N400 C2"),
        7,
        None,
        f"{_FURNITURE}, CNN-LSTM",
        f"{_HERE}.track_lstm:TrackLstm",
        MappingProxyType({"encoder": "cnn"}),
        faults_fixed=(*_LSTM_FAULTS, "the residual blocks have their skip"),
        labels_frames="always",
        keeps_state=True,
    )
)

register(
    ModelCard(
        "i3d",
        "lowres",
        axes("C3 T32 H112 W112"),
        26,
        12_313_914,
        f"Carreira and Zisserman, CVPR 2017 (piergiaj/pytorch-i3d); {_TINYVIRAT}",
        f"{_HERE}.i3d:I3D",
        pixels=SIGNED,
        faults_fixed=_RESIZER_FAULTS,
    )
)
register(
    ModelCard(
        "i3d-small",
        "lowres",
        axes("C3 T16 H48 W48"),
        26,
        None,
        "ours: I3D with an eighth of the channels, for CPU training",
        f"{_HERE}.i3d:I3D",
        MappingProxyType({"width_multiplier": 0.125, "dropout": 0.3, "norm_momentum": 0.1}),
        SIGNED,
        _RESIZER_FAULTS,
    )
)
for _name, _function, _settings, _faults in (
    ("i3d-resizer-3d", "i3d_resizer", {"kernel": "3d"}, ()),
    ("i3d-resizer-2d", "i3d_resizer", {"kernel": "2d"}, ()),
    (
        "i3d-stn-resizer",
        "i3d_stn_resizer",
        {},
        ("frames are cut out along time", "one map a clip: nothing jitters", "any input size"),
    ),
    (
        "i3d-transformer-resizer",
        "i3d_transformer_resizer",
        {},
        (
            "theta starts at the identity",
            "frames are cut out along time",
            "one theta a clip: nothing jitters",
            "any input size",
        ),
    ),
):
    register(
        ModelCard(
            _name,
            "lowres",
            axes("C3 T32 H28 W28"),
            26,
            None,
            f"{_TINYVIRAT}, after Talebi and Milanfar, ICCV 2021",
            f"{_HERE}.resizers:{_function}",
            MappingProxyType(_settings),
            SIGNED,
            (*_RESIZER_FAULTS, *_faults),
            f"{_HERE}.i3d:I3D",
        )
    )
