"""Tests of masks from a text prompt, with tiny models of random weights."""

from __future__ import annotations

import numpy as np
import pytest
from stage_runs import MemoryItem, texture, view_source

from actionprep.datasets.products.masks import unpack_masks
from actionprep.errors import InputError, SetupError, UserError
from actionprep.pipeline.mask_sources import text
from actionprep.pipeline.mask_sources.settings import MasksSettings
from actionprep.pipeline.masks import Masks
from actionprep.pipeline.stage import ArrayBlock


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    pytest.importorskip("transformers")
    from tiny_prompted import save_detector, save_segmenter

    folder = tmp_path_factory.mktemp("models")
    save_detector(folder / "dino")
    save_segmenter(folder / "sam2")
    return folder


@pytest.fixture
def settings(models, monkeypatch):
    monkeypatch.setattr(text, "_SHORT_SIDE", 96)
    return MasksSettings(
        source="text",
        prompt="Hands . black sticks",
        detector=str(models / "dino"),
        segmenter=str(models / "sam2"),
        device="cpu",
    )


def color(num_frames=2, height=60, width=80):
    return np.stack(
        [
            np.rint(np.stack([texture(height, width, seed=3 * t + c) for c in range(3)], -1)).astype(np.uint8)
            for t in range(num_frames)
        ]
    )


def masks_of(frames, settings):
    source = view_source(*frames.shape[:3])
    item = MemoryItem()
    stage = Masks(settings, source, item, {})
    stage.push(ArrayBlock(frames, time=source.times, index=np.arange(len(frames))), {})
    stage.finish({})
    return item, unpack_masks(item["foreground"], frames.shape[2])


def test_boxes_equal_those_of_the_published_processor(settings, models):
    import torch
    from transformers import AutoTokenizer, GroundingDinoForObjectDetection, GroundingDinoImageProcessorPil
    from transformers.models.grounding_dino.processing_grounding_dino import GroundingDinoProcessor

    [frame] = color(1)
    # The size is that of the frame, so that both see the same pixels.
    processor = GroundingDinoProcessor(
        GroundingDinoImageProcessorPil(size={"shortest_edge": 96, "longest_edge": 1333}),
        AutoTokenizer.from_pretrained(models / "dino"),
    )
    detector = GroundingDinoForObjectDetection.from_pretrained(models / "dino").eval()
    inputs = processor(images=frame, text=[["Hands", "black sticks"]], return_tensors="pt")
    with torch.inference_mode():
        result = detector(**inputs)
    scores = result.logits.sigmoid().amax(-1)[0]
    limit = float(scores.median())
    [expected] = processor.post_process_grounded_object_detection(
        result, inputs["input_ids"], threshold=limit, target_sizes=[(60, 80)]
    )
    boxes, best = text._models(settings).boxes(frame, limit)
    assert best == pytest.approx(float(scores.max()), abs=0.02)
    # Boxes outside of the frame are cut off.
    expected = expected["boxes"].numpy().clip(0, [80, 60, 80, 60])
    nearest = np.abs(boxes[:, None] - expected[None]).max(-1).min(0)
    assert np.median(nearest) < 1


def test_foreground_is_the_union_of_the_objects(settings):
    frames = color()
    item, foreground = masks_of(frames, settings)
    models = text._models(settings)
    for frame, mask in zip(frames, foreground, strict=True):
        boxes, _ = models.boxes(frame, settings.box_score)
        assert len(boxes)
        union = np.zeros((60, 80), bool)
        for box in boxes:
            union |= models.masks(frame, box[None])[0]
        assert np.mean(union == mask) > 0.99
    assert item.attributes["source"] == "text"


@pytest.mark.parametrize("size", [(30, 45), (120, 160)])
def test_prepare_resizes_and_normalizes_like_pillow(size):
    from PIL import Image

    [frame] = color(1)
    resized = np.asarray(Image.fromarray(frame).resize(size[::-1], Image.Resampling.BILINEAR), np.float32)
    expected = (resized / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    pixels = text.prepare(frame, size)[0].permute(1, 2, 0).numpy()
    # One gray level is at most 0.018 after normalization.
    assert np.abs(pixels - expected).max() < 0.02


@pytest.mark.parametrize(
    ("frame", "expected"),
    [((480, 640), (800, 1066)), ((1080, 1920), (750, 1333)), ((640, 480), (1066, 800)), ((100, 400), (333, 1333))],
)
def test_detector_size_limits_the_long_side(frame, expected):
    assert text.detector_size(*frame) == expected


def test_prompt_that_finds_nothing_is_an_error(settings, monkeypatch):
    class Blind:
        def boxes(self, frame, score):
            return np.zeros((0, 4), np.float32), 0.12

    monkeypatch.setattr(text, "_models", lambda settings: Blind())
    with pytest.raises(InputError) as caught:
        masks_of(color(), settings)
    assert str(caught.value) == (
        "The prompt 'Hands . black sticks' found nothing in kitchen/seq, view 0: the highest score of a box is 0.12, "
        "expected 0.3 or more.\n"
        "Name what is visible in simple words, such as 'hands . black sticks', or lower masks.box_score."
    )


@pytest.mark.parametrize(("setting", "model"), [("detector", "GroundingDino"), ("segmenter", "Sam2Model")])
def test_missing_weights_name_the_setting_and_the_download(settings, tmp_path, setting, model):
    (tmp_path / "empty").mkdir()
    missing = settings.model_copy(update={setting: str(tmp_path / "empty")})
    with pytest.raises(SetupError, match=rf"^The weights of {model}") as caught:
        Masks.identity(missing)
    assert f"'{tmp_path / 'empty'}' are missing and cannot be downloaded: " in str(caught.value)
    assert f"copy the folder, and set masks.{setting} to it" in str(caught.value)
    assert "--source person" in str(caught.value)


def test_missing_weights_offline_are_reported_at_once(settings, monkeypatch):
    def refuse(address, timeout):
        raise OSError(f"no route to {address[0]}:{address[1]}")

    monkeypatch.setenv("HF_ENDPOINT", "https://hub.example:8443")
    monkeypatch.setattr(text, "getproxies", dict)
    monkeypatch.setattr(text.socket, "create_connection", refuse)
    with pytest.raises(SetupError) as caught:
        text._models(settings.model_copy(update={"detector": "someone/dino"}))
    assert str(caught.value).startswith(
        "The weights of GroundingDinoForObjectDetection 'someone/dino' are missing and cannot be downloaded: it is not in "
        "the cache of the hub, and hub.example cannot be reached (no route to hub.example:8443)\n"
    )


def test_identity_depends_on_the_prompt(settings):
    same = settings.model_copy(update={"prompt": "hands. BLACK sticks."})
    other = settings.model_copy(update={"prompt": "person"})
    identity = Masks.identity(settings)
    assert set(identity) >= {"detector weights", "segmenter weights", "tokens"}
    assert Masks.identity(same) == identity
    assert Masks.identity(other)["tokens"] != identity["tokens"]


@pytest.mark.parametrize("values", [{"source": "text"}, {"source": "text", "prompt": " . "}, {"prompt": "hands"}])
def test_prompt_and_source_belong_together(values):
    with pytest.raises(UserError, match="'prompt' names what source = \"text\" segments: give both or neither"):
        MasksSettings.read(values, where="[masks]")
