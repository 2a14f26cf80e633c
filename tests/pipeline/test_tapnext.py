"""Tests of the adapter of TAPNext++; most use a fake repository with the same interface."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from actionprep.errors import SetupError, UserError
from actionprep.pipeline.trackers import TRACKERS
from actionprep.pipeline.trackers.settings import TracksSettings

STAND_IN = '''
"""Moves every point by `velocity` (y, x) of the network's pixels in each frame after that of its query."""
import torch

SEEN = []

class State:
    def __init__(self, step, query_points):
        self.step, self.query_points = step, query_points

class TAPNext(torch.nn.Module):
    def __init__(self, image_size):
        super().__init__()
        assert image_size == (256, 256)
        self.velocity = torch.nn.Parameter(torch.zeros(2))
        self.bias = torch.nn.Parameter(torch.zeros(1))
        self.seen = SEEN

    def forward(self, video, query_points=None, state=None):
        assert not self.training and video.dtype == torch.float32 and tuple(video.shape) == (1, 1, 256, 256, 3)
        if state is None:
            state = State(0, query_points)
        points, step = state.query_points, state.step
        self.seen.append((step, video[0, 0].mean(dim=(0, 1)).tolist(), points))
        since = step - points[..., :1]
        tracks = points[..., 1:] + since * self.velocity
        logits = self.bias - 0.1 * since
        return tracks[:, None], None, logits[:, None], State(step + 1, points)
'''
VELOCITY = [-1.0, 2.0]


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    folder = tmp_path / "clone" / "tapnet" / "tapnext"
    folder.mkdir(parents=True)
    (folder / "tapnext_torch.py").write_text(STAND_IN)
    (tmp_path / "clone" / "tapnet" / "__init__.py").write_text("")
    return tmp_path / "clone"


def settings_for(repo: Path, content: object = None, **changes) -> TracksSettings:
    checkpoint = repo.parent / "weights.ckpt"
    weights = {"tapnext.velocity": torch.tensor(VELOCITY), "tapnext.bias": torch.tensor([1.0])}
    torch.save({"state_dict": weights, "step": 7} if content is None else content, checkpoint)
    return TracksSettings(
        **{"tracker": "tapnextpp", "repo": str(repo), "checkpoint": str(checkpoint), "device": "cpu", **changes}
    )


def track(settings: TracksSettings, queries: list, *, num_frames: int = 6, both_ways: bool = True):
    # Frame t is of one color: 10 t, 100 and 200.
    frames = [np.tile(np.array([10 * t, 100, 200], np.uint8), (128, 192, 1)) for t in range(num_frames)]
    return TRACKERS.find("tapnextpp")(settings).track(frames, np.array(queries, float), both_ways=both_ways)


def seen_by(settings: TracksSettings) -> list:
    from actionprep.pipeline.trackers import tapnext

    weights = Path(settings.checkpoint).resolve()
    return tapnext._load(Path(settings.repo).resolve(), weights, weights.stat().st_mtime_ns, "cpu").seen


def test_tapnext_returns_frame_pixels_in_both_directions(repo):
    queries = [[0, 10.0, 20.0], [2, 100.0, 50.5], [5, 191.0, 127.0]]
    result = track(settings_for(repo), queries)
    for point, (seed, x, y) in enumerate(queries):
        away = np.abs(np.arange(6) - seed)
        expected = np.stack([x + away * 2 * 192 / 256, y - away * 128 / 256], axis=1)
        assert np.allclose(result.xy[:, point], expected, atol=1e-3)
        visibility = np.where(away == 0, 1, 1 / (1 + np.exp(-(1 - 0.1 * away))))
        assert np.allclose(result.visibility[:, point], visibility, atol=1e-5)
    assert (result.confidence == 1).all()
    assert result.xy.dtype == result.visibility.dtype == result.confidence.dtype == np.float32


def test_tapnext_reads_frames_in_order_then_reversed(repo):
    settings = settings_for(repo)
    track(settings, [[2, -0.5, 63.5], [1, 191.5, -0.5]])
    seen = seen_by(settings)
    assert [step for step, _, _ in seen] == [0, 1, 2, 3, 4, 5] * 2
    red = [round((mean[0] + 1) * 127.5) for _, mean, _ in seen]
    assert red == [0, 10, 20, 30, 40, 50, 50, 40, 30, 20, 10, 0]
    assert np.allclose(seen[0][1][1:], [100 / 127.5 - 1, 200 / 127.5 - 1], atol=1e-5)
    # The corners of the frame are those of the network's image; queries are (t, y, x).
    assert np.allclose(seen[0][2][0], [[2, 128, 0], [1, 0, 256]], atol=1e-4)
    assert np.allclose(seen[6][2][0], [[3, 128, 0], [4, 0, 256]], atol=1e-4)


def test_tapnext_forward_only_makes_one_pass(repo):
    settings = settings_for(repo)
    result = track(settings, [[3, 40.0, 50.0]], both_ways=False)
    assert len(seen_by(settings)) == 6
    assert (result.xy[:3, 0] == (40, 50)).all()
    assert (result.visibility[:3] == 0).all()
    assert (result.confidence[:3] == 0).all()
    assert result.visibility[3, 0] == 1
    assert np.allclose(result.xy[5, 0], [43, 49], atol=1e-3)


def test_tapnext_identity_follows_code_and_weights(repo):
    import hashlib

    settings = settings_for(repo)
    tracker = TRACKERS.find("tapnextpp")
    before = tracker.identity(settings)
    assert before["weights"] == "sha256:" + hashlib.sha256(Path(settings.checkpoint).read_bytes()).hexdigest()
    assert tracker.is_available(settings)
    (repo / "tapnet/tapnext/pscan.py").write_text("x = 1\n")
    after = tracker.identity(settings)
    assert {key for key in before if before[key] != after[key]} == {"code"}


@pytest.mark.parametrize("setting", ["", "nowhere"])
@pytest.mark.parametrize("key", ["repo", "checkpoint"])
def test_missing_tapnext_files_are_named(repo, key, setting):
    value = setting and str(repo / setting)
    settings = settings_for(repo).model_copy(update={key: value})
    looked_for = rf"looked for .*{'nowhere' if setting else 'not set'}"
    what = {"repo": "code", "checkpoint": "weights"}[key]
    with pytest.raises(SetupError, match=rf"(?s)TAPNext\+\+ needs its {what}, .*{looked_for}.*tracks\.{key}"):
        TRACKERS.find("tapnextpp").identity(settings)
    assert not TRACKERS.find("tapnextpp").is_available(settings)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": {}}, "it has no 'state_dict'"),
        ({"state_dict": {"tapnext.velocity": torch.zeros(2)}}, "Missing key.*bias"),
        ({"state_dict": {"tapnext.velocity": torch.zeros(3), "tapnext.bias": torch.zeros(1)}}, "size mismatch"),
    ],
)
def test_a_checkpoint_that_does_not_fit_tapnext(repo, content, message):
    with pytest.raises(UserError, match=rf"weights\.ckpt does not fit TAPNext\+\+: .*{message}.*Expected "):
        track(settings_for(repo, content), [[0, 1, 1]])


def test_a_tapnext_checkpoint_with_code_is_not_loaded(repo):
    with pytest.raises(UserError, match="was not loaded: it contains more than weights"):
        track(settings_for(repo, {"state_dict": {"tapnext.bias": Path("x")}}), [[0, 1, 1]])


@pytest.mark.parametrize("package", ["torchvision", "einops"])
def test_a_package_that_tapnext_needs_is_named(repo, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    (repo / "tapnet/tapnext/tapnext_torch.py").write_text(f"import {package}\n")
    with pytest.raises(SetupError, match=rf"needs the package {package}, .*pip install torchvision einops"):
        track(settings_for(repo), [[0, 1, 1]])


def test_code_that_is_not_tapnext_is_named(repo):
    (repo / "tapnet/tapnext/tapnext_torch.py").write_text("import no_such_package_here\n")
    with pytest.raises(SetupError, match=r"does not load: .*no_such_package_here.*Expected a clone of"):
        track(settings_for(repo), [[0, 1, 1]])


def test_tapnext_leaves_the_import_path_alone(repo, monkeypatch):
    monkeypatch.setitem(sys.modules, "tapnet", other := type(sys)("tapnet"))
    path = list(sys.path)
    track(settings_for(repo), [[0, 1, 1]])
    assert sys.path == path
    assert sys.modules["tapnet"] is other
    assert "tapnet.tapnext" not in sys.modules


@pytest.mark.skipif("ACTIONPREP_TAPNET_REPO" not in os.environ, reason="ACTIONPREP_TAPNET_REPO is not set")
def test_tapnext_equals_its_code_on_the_full_video(tmp_path):
    from actionprep.pipeline.trackers import tapnext

    code = Path(os.environ["ACTIONPREP_TAPNET_REPO"])
    torch.manual_seed(0)
    model = tapnext._import(code).TAPNext(image_size=(256, 256)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.02)  # some are not initialized
    weights = {f"tapnext.{key}": value for key, value in model.state_dict().items()}
    torch.save({"state_dict": weights}, tmp_path / "w.ckpt")
    settings = TracksSettings(tracker="tapnextpp", repo=str(code), checkpoint=str(tmp_path / "w.ckpt"), device="cpu")
    frames = list(np.random.default_rng(0).integers(0, 256, (4, 256, 256, 3), dtype=np.uint8))
    queries = np.array([[0, 30.0, 40.0], [1, 200.0, 99.5]])
    result = TRACKERS.find("tapnextpp")(settings).track(frames, queries, both_ways=False)
    # All frames in one call, where the tracker makes a call for each.
    points = torch.tensor([[[0, 40.5, 30.5], [1, 100.0, 200.5]]])
    with torch.no_grad():
        tracks, _, logits, _ = model(torch.from_numpy(np.stack(frames))[None].float() / 127.5 - 1, points)
    xy, visibility = tracks[0].flip(-1).numpy() - 0.5, logits[0, ..., 0].sigmoid().numpy()
    after = np.arange(4)[:, None] > queries[:, 0]
    print(
        "largest difference", np.abs(result.xy - xy)[after].max(), np.abs(result.visibility - visibility)[after].max()
    )
    assert np.allclose(result.xy[after], xy[after], atol=0.02)
    assert np.allclose(result.visibility[after], visibility[after], atol=1e-3)
