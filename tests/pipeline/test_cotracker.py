"""Tests of the CoTracker adapter, and of its messages about missing or wrong code and weights.

Most tests use a fake repository with the same interface. Others use the real one if it is available.
"""

from __future__ import annotations

import os
import pickle
import urllib.error
from pathlib import Path

import numpy as np
import pytest
import torch
from recordings import moving_square, write_video

from actionprep.api import make_study
from actionprep.errors import SetupError, UserError
from actionprep.pipeline.trackers import TRACKERS
from actionprep.pipeline.trackers.cotracker import HUB_COMMIT, cotracker_grid
from actionprep.pipeline.trackers.settings import TracksSettings

KINDS = ("cotracker3_offline", "cotracker3_online", "cotracker2")
WEIGHTS = {
    "cotracker3_offline": "scaled_offline.pth",
    "cotracker3_online": "scaled_online.pth",
    "cotracker2": "cotracker2.pth",
}

STAND_IN = '''
"""Moves every point by its weight `velocity` in each frame after that of its query, in the order of the input."""
import torch

class Model(torch.nn.Module):
    def __init__(self, kind, window_len):
        super().__init__()
        self.kind, self.window_len = kind, window_len
        self.velocity = torch.nn.Parameter(torch.zeros(2))
        self.online_ind = None
        self.seen = []

    def init_video_online_processing(self):
        self.online_ind, self.num_shown = 0, 0

    def forward(self, video, queries, iters, is_online=False):
        assert iters == 6 and video.dtype == torch.float32 and tuple(video.shape[2:]) == (3, 384, 512)
        self.seen.append((video.shape[1], queries.clone(), video.mean().item()))
        num_frames = video.shape[1]
        if is_online:
            assert self.kind != "cotracker3_offline" and num_frames <= self.window_len
            num_frames = self.num_shown = self.online_ind + num_frames
            self.online_ind += self.window_len // 2
        elif self.kind == "cotracker2":
            assert num_frames >= self.window_len, "no pass is made over a shorter video"
        away = torch.arange(num_frames)[None, :, None] - queries[:, None, :, 0]
        if self.kind == "cotracker3_offline":
            away = away.abs()
        tracks = queries[:, None, :, 1:] + away[..., None] * self.velocity
        visibility = (0.97 - 0.01 * away.abs()).clamp(0, 1)
        confidence = torch.full_like(visibility, 0.75)
        return (tracks, visibility, None) if self.kind == "cotracker2" else (tracks, visibility, confidence, None)

class Predictor(torch.nn.Module):
    def __init__(self, kind, window_len):
        super().__init__()
        self.interp_shape = (384, 512)
        self.model = Model(kind, window_len)

def cotracker3_offline(*, pretrained=True, **kwargs):
    assert not pretrained, "weights are loaded by us, weights only"
    return Predictor("cotracker3_offline", 60)

def cotracker3_online(*, pretrained=True, **kwargs):
    assert not pretrained
    return Predictor("cotracker3_online", 16)

def cotracker2(*, pretrained=True, **kwargs):
    assert not pretrained
    return Predictor("cotracker2", 8)
'''


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    repo = tmp_path / "co-tracker"
    repo.mkdir()
    (repo / "hubconf.py").write_text(STAND_IN)
    return repo


def settings_for(kind: str, repo: Path, weights: object = None, **changes) -> TracksSettings:
    checkpoint = repo.parent / WEIGHTS[kind]
    if not checkpoint.exists():
        torch.save({"velocity": torch.tensor([2.0, -1.0])} if weights is None else weights, checkpoint)
    return TracksSettings(tracker=kind, repo=str(repo), checkpoint=str(checkpoint), device="cpu", **changes)


def track(settings: TracksSettings, num_frames: int, queries: np.ndarray, *, both_ways: bool = True):
    frames = [np.full((192, 256, 3), 100, np.uint8)] * num_frames
    return TRACKERS.find(settings.tracker)(settings).track(frames, queries, both_ways=both_ways)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_frames", [3, 16, 21, 40])
def test_cotracker_returns_frame_pixels_in_both_directions(repo, kind, num_frames):
    seed = num_frames // 2
    queries = np.array([[seed, 100.0, 50.0], [seed, 20.5, 180.25]])
    result = track(settings_for(kind, repo), num_frames, queries)
    away = np.abs(np.arange(num_frames) - seed)[:, None, None]
    velocity = np.array([2 * 255 / 511, -1 * 191 / 383])
    assert np.allclose(result.xy, queries[None, :, 1:] + away * velocity, atol=1e-3)
    visibility = np.where(away[..., 0] == 0, 1, 0.97 - 0.01 * away[..., 0])
    assert np.allclose(result.visibility, visibility, atol=1e-6)
    confidence = 1.0 if kind == "cotracker2" else 0.75
    assert np.allclose(result.confidence, np.where(away[..., 0] == 0, 1, confidence))
    assert result.xy.dtype == result.visibility.dtype == result.confidence.dtype == np.float32
    assert result.xy.shape == (num_frames, 2, 2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("height", "width", "moving"), [(24, 1, 1), (1, 24, 0)])
def test_cotracker_tracks_frames_one_pixel_wide_or_high(repo, kind, height, width, moving):
    velocity = torch.zeros(2)
    velocity[moving] = (384 - 1 if moving else 512 - 1) / 23  # one pixel of the frame
    tracker = TRACKERS.find(kind)(settings_for(kind, repo, {"velocity": velocity}))
    frames = [np.zeros((height, width, 3), np.uint8)] * 5
    tracks = tracker.track(frames, np.array([[0, 0, 0]], np.float32), both_ways=False)
    assert tracks.xy[:, 0, moving] == pytest.approx([0, 1, 2, 3, 4], abs=1e-3)
    assert tracks.xy[:, 0, 1 - moving].tolist() == [0] * 5


@pytest.mark.parametrize("kind", KINDS)
def test_forward_only_says_nothing_of_the_frames_before(repo, kind):
    queries = np.array([[4, 100.0, 50.0], [6, 30.0, 60.0]])
    result = track(settings_for(kind, repo), 12, queries, both_ways=False)
    assert (result.xy[:4, 0] == (100, 50)).all()
    assert (result.visibility[:4, 0] == 0).all()
    assert (result.visibility[:6, 1] == 0).all()
    assert np.allclose(result.xy[11, :, 0], [100 + 7 * 2 * 255 / 511, 30 + 5 * 2 * 255 / 511], atol=1e-3)
    assert result.visibility[[4, 6], [0, 1]].tolist() == [1, 1]


def test_a_grid_of_support_points_is_tracked_along(repo):
    from actionprep.pipeline.trackers import cotracker

    settings = settings_for("cotracker3_offline", repo)
    track(settings, 5, np.array([[2, 0, 0], [2, 255, 191]]))
    tracker = TRACKERS.find(settings.tracker)(settings)
    num_frames, queries, mean = tracker._predictor().model.seen[-1]
    assert cotracker._load.cache_info().hits >= 1
    assert (num_frames, mean) == (5, 100)
    assert queries.shape == (1, 38, 3)
    assert queries[0, :2].tolist() == [[2, 0, 0], [2, 511, 383]]
    assert queries[0, 2].tolist() == [0, 8, 8]
    assert queries[0, 37].tolist() == [0, 504, 376]


@pytest.mark.parametrize(("kind", "support"), [("cotracker2", 8), ("cotracker3_online", 0)])
def test_cotracker_reversed_pass_reads_the_full_window(repo, kind, support):
    settings = settings_for(kind, repo)
    track(settings, 9, np.array([[3, 0, 0], [5, 255, 191]]))
    seen = TRACKERS.find(kind)(settings)._predictor().model.seen[-2:]
    assert [num_frames for num_frames, _, _ in seen] == [9, 9]
    starts = [queries[0, :, 0].tolist() for _, queries, _ in seen]
    assert starts == [[3, 5] + [0] * 36, [5, 3] + [support] * 36]


def test_the_online_model_never_sees_more_than_its_window(repo):
    settings = settings_for("cotracker3_online", repo)
    track(settings, 45, np.array([[0, 10, 10]]), both_ways=False)
    seen = TRACKERS.find(settings.tracker)(settings)._predictor().model.seen
    assert [num_frames for num_frames, _, _ in seen] == [16, 16, 16, 16, 13]


def test_one_point_alone_stands_in_the_middle():
    assert cotracker_grid(1, 384, 512).tolist() == [[256, 192]]


def test_identity_follows_code_and_weights(repo):
    settings = settings_for("cotracker3_offline", repo)
    kind = TRACKERS.find("cotracker3_offline")
    before = kind.identity(settings)
    assert set(before) == {"tracker", "passes", "code", "weights", "torch"}
    (repo / "cotracker").mkdir()
    (repo / "cotracker" / "model.py").write_text("x = 1\n")
    changed = kind.identity(settings)
    assert changed["code"] != before["code"]
    assert changed["weights"] == before["weights"]
    torch.save({"velocity": torch.zeros(2)}, settings.checkpoint)
    os.utime(settings.checkpoint, ns=(1, 1))
    assert kind.identity(settings)["weights"] != before["weights"]


def test_cotracker_missing_weights_names_paths_and_remedies(repo):
    settings = TracksSettings(tracker="cotracker3_offline", repo=str(repo), checkpoint=str(repo / "none.pth"))
    kind = TRACKERS.find("cotracker3_offline")
    assert not kind.is_available(settings)
    with pytest.raises(SetupError) as caught:
        kind.identity(settings)
    assert str(caught.value) == (
        "CoTracker 3 needs its weights, which were not found.\n"
        f"  looked for   {repo / 'none.pth'} (tracks.checkpoint)\n"
        '  do one of    put the file there · set tracks.checkpoint = "…/scaled_offline.pth" in actionprep.toml · '
        "run once with internet access\n"
        "  or use       --tracker lk, which needs no weights"
    )


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Disable the network, and use an empty hub folder."""

    def refuse(url: str, *args: object, **options: object) -> None:
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.delenv("ACTIONPREP_OFFLINE", raising=False)
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_without_network_and_weights_the_message_says_so(repo, offline):
    settings = TracksSettings(tracker="cotracker3_offline", repo=str(repo))
    with pytest.raises(SetupError) as caught:
        TRACKERS.find("cotracker3_offline").identity(settings)
    assert str(caught.value) == (
        "CoTracker 3 needs its weights, which were not found.\n"
        f"  looked for   scaled_offline.pth in {offline / 'checkpoints'} and in tracks.checkpoint (not set); "
        "download failed: <urlopen error Name or service not known>\n"
        '  do one of    put the file there · set tracks.checkpoint = "…/scaled_offline.pth" in actionprep.toml · '
        "run once with internet access\n"
        "  or use       --tracker lk, which needs no weights"
    )


def test_nothing_is_fetched_when_it_is_told_to_stay_offline(repo, monkeypatch, tmp_path):
    monkeypatch.setenv("ACTIONPREP_OFFLINE", "1")
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    with pytest.raises(SetupError, match="download failed: ACTIONPREP_OFFLINE is set"):
        TRACKERS.find("cotracker2").identity(TracksSettings(tracker="cotracker2", repo=str(repo)))


def test_without_network_and_code_the_message_says_so(offline):
    with pytest.raises(SetupError) as caught:
        TRACKERS.find("cotracker2").identity(TracksSettings(tracker="cotracker2"))
    assert str(caught.value) == (
        "CoTracker 2 needs its code, which was not found.\n"
        f"  looked for   {offline / f'facebookresearch_co-tracker_{HUB_COMMIT}'} and in tracks.repo (not set); "
        "download failed: <urlopen error Name or service not known>\n"
        '  do one of    put facebookresearch/co-tracker at commit 82e02e8 there · set tracks.repo = "…/co-tracker" in '
        "actionprep.toml · run once with internet access\n"
        "  or use       --tracker lk, which needs no weights"
    )


def test_what_lies_in_the_hub_folder_is_used_without_asking(repo, offline):
    offline.mkdir()
    repo.rename(offline / f"facebookresearch_co-tracker_{HUB_COMMIT}")
    (offline / "checkpoints").mkdir()
    torch.save({"model": {"velocity": torch.ones(2)}}, offline / "checkpoints" / "cotracker2.pth")
    settings = TracksSettings(tracker="cotracker2", device="cpu")
    assert TRACKERS.find("cotracker2").is_available(settings)
    result = track(settings, 9, np.array([[0, 10, 10]]))
    assert result.xy[8, 0, 0] == pytest.approx(10 + 8 * 255 / 511, abs=1e-3)


class Evil:
    """Runs code when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return (Path.touch, (self.marker,))


@pytest.mark.parametrize("form", ["plain pickle", "torch file"])
def test_cotracker_rejects_a_malicious_pickle_without_running_it(repo, tmp_path, form):
    marker, checkpoint = tmp_path / "was-run", tmp_path / "scaled_offline.pth"
    if form == "plain pickle":
        checkpoint.write_bytes(pickle.dumps({"velocity": Evil(marker)}, protocol=2))
    else:
        torch.save({"velocity": Evil(marker)}, checkpoint)
    settings = settings_for("cotracker3_offline", repo)
    with pytest.raises(
        UserError, match=r"scaled_offline.pth was not loaded: it contains more than weights, .* could run code"
    ):
        track(settings, 4, np.array([[0, 10, 10]]))
    assert not marker.exists()


def test_a_cut_checkpoint_is_told(repo):
    settings = settings_for("cotracker3_offline", repo)
    content = Path(settings.checkpoint).read_bytes()
    Path(settings.checkpoint).write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"scaled_offline.pth (cannot be read as a checkpoint|is not loaded)"):
        track(settings, 4, np.array([[0, 10, 10]]))


def test_weights_of_another_model_are_told(repo):
    settings = settings_for("cotracker2", repo, weights={"fnet.conv1.weight": torch.zeros(1)})
    with pytest.raises(
        UserError, match=r"cotracker2.pth does not fit CoTracker 2 as 'cotracker2': .* Set --tracker to the model"
    ):
        track(settings, 9, np.array([[0, 10, 10]]))


def test_code_that_does_not_load_is_told(repo):
    (repo / "hubconf.py").write_text("import a_module_that_is_not_there\n")
    with pytest.raises(SetupError, match=r"The code of CoTracker 3 in .*co-tracker does not load: No module named"):
        track(settings_for("cotracker3_offline", repo), 4, np.array([[0, 10, 10]]))


def test_code_without_the_entry_point_is_told(repo):
    (repo / "hubconf.py").write_text('dependencies = ["torch"]\n')
    with pytest.raises(SetupError) as raised:
        track(settings_for("cotracker3_offline", repo), 4, np.array([[0, 10, 10]]))
    assert str(raised.value) == (
        f"The code of CoTracker 3 in {repo} does not load: Cannot find callable cotracker3_offline in hubconf. Expected "
        "the repository facebookresearch/co-tracker at commit 82e02e8, which only needs torch and numpy. "
        "Get that commit, or use --tracker lk."
    )


def test_memory_that_runs_out_is_told(repo, monkeypatch):
    settings = settings_for("cotracker3_offline", repo)
    tracker = TRACKERS.find("cotracker3_offline")(settings)

    def full(*args: object, **options: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(tracker, "_run", full)
    with pytest.raises(SetupError, match="CoTracker 3 ran out of memory on cpu with 2 frames and 1 points at a time"):
        tracker.track([np.zeros((192, 256, 3), np.uint8)] * 2, np.array([[0, 10, 10]]), both_ways=True)


@pytest.fixture
def real_repo() -> Path:
    folder = os.environ.get("ACTIONPREP_COTRACKER_REPO")
    if not folder:
        pytest.skip("ACTIONPREP_COTRACKER_REPO does not name a folder with the code of CoTracker")
    return Path(folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "both_ways"),
    [("cotracker3_offline", True), ("cotracker3_online", False), ("cotracker2", False), ("cotracker2", True)],
)
def test_cotracker_equals_the_official_predictor(real_repo, tmp_path, kind, both_ways):
    torch.manual_seed(0)
    predictor = torch.hub.load(str(real_repo), kind, source="local", pretrained=False, verbose=False)
    torch.save(predictor.model.state_dict(), tmp_path / WEIGHTS[kind])
    settings = TracksSettings(tracker=kind, repo=str(real_repo), checkpoint=str(tmp_path / WEIGHTS[kind]), device="cpu")
    # Enough frames for two steps of the online model; on a CPU each takes seconds.
    num_frames = 18 if kind == "cotracker3_online" else 9
    video = np.random.default_rng(0).integers(0, 255, (num_frames, 60, 80, 3), np.uint8)
    seed = np.array([4, 4, 2])
    queries = np.column_stack([seed, [[10.0, 12.0], [60.0, 30.0], [40.0, 55.0]]])
    tracks = TRACKERS.find(kind)(settings).track(list(video), queries, both_ways=both_ways)
    as_tensor = torch.from_numpy(video).permute(0, 3, 1, 2)[None].float()
    asked = torch.from_numpy(queries)[None].float()
    if kind == "cotracker3_online":
        predictor(as_tensor, is_first_step=True, queries=asked, add_support_grid=True)
        for first in (0, 8):
            xy, seen = predictor(as_tensor[:, first : first + 16], add_support_grid=True)
        visible = tracks.visibility * tracks.confidence > 0.6
    else:
        xy, seen = predictor(as_tensor, queries=asked, backward_tracking=both_ways and kind == "cotracker2")
        visible = tracks.visibility > 0.9
    frame = np.arange(num_frames)[:, None]
    # The online predictor does not write the query into its frame.
    compared = frame >= 0 if both_ways else frame > seed if kind == "cotracker3_online" else frame >= seed
    compared = np.broadcast_to(compared, (num_frames, 3))
    assert np.abs(tracks.xy - xy[0].numpy())[compared].max() < 1e-3
    assert np.array_equal(visible[compared], seen[0].numpy()[compared])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "num_frames", "direction"),
    [("cotracker3_offline", 9, "both"), ("cotracker3_online", 18, "forward"), ("cotracker2", 9, "both")],
)
def test_stored_tracks_equal_the_official_predictor(real_repo, tmp_path, kind, num_frames, direction):
    torch.manual_seed(0)
    predictor = torch.hub.load(str(real_repo), kind, source="local", pretrained=False, verbose=False)
    torch.save(predictor.model.state_dict(), tmp_path / WEIGHTS[kind])
    clip = moving_square(num_frames, height=60, width=80)
    write_video(tmp_path / "videos" / "any" / "a.mp4", clip)
    study, _ = make_study(tmp_path, {}, force=True)
    study.scan()
    (tmp_path / "points.csv").write_text("x,y,frame\n10,12,4\n60,30,4\n40,55,2\n")
    tracks = {
        "tracker": kind, "repo": str(real_repo), "checkpoint": WEIGHTS[kind], "device": "cpu", "seeding": "points",
        "points": "points.csv", "short_side": 0, "window": num_frames, "stride": num_frames, "direction": direction,
    }  # fmt: skip
    report = study.build("tracks", "frames", overrides={"tracks": tracks, "frames": {"size": 60}})
    assert report.ok, report.quarantined
    stored, frames = study.store.item("tracks", "any/a", "0"), study.store.item("frames", "any/a", "0")["rgb"][:]
    as_tensor = torch.from_numpy(frames).permute(0, 3, 1, 2)[None].float()
    asked = torch.tensor([[[4, 10.0, 12.0], [4, 60.0, 30.0], [2, 40.0, 55.0]]])
    if kind == "cotracker3_online":
        predictor(as_tensor, is_first_step=True, queries=asked, add_support_grid=True)
        for first in (0, 8):
            xy, _ = predictor(as_tensor[:, first : first + 16], add_support_grid=True)
    else:
        xy, _ = predictor(as_tensor, queries=asked, backward_tracking=kind == "cotracker2")
    frame, seed = np.arange(num_frames)[:, None], np.array([4, 4, 2])
    # The online predictor does not write the query into its frame.
    compared = np.broadcast_to(frame > seed if kind == "cotracker3_online" else frame >= 0, (num_frames, 3))
    assert np.abs(stored["xy"][0] - xy[0].numpy())[compared].max() < 1e-3


@pytest.mark.slow
def test_the_grid_is_that_of_the_real_code(real_repo, monkeypatch):
    monkeypatch.syspath_prepend(str(real_repo))
    from cotracker.models.core.model_utils import get_points_on_a_grid

    for size in (1, 6, 20, 60):
        assert np.allclose(get_points_on_a_grid(size, (384, 512))[0].numpy(), cotracker_grid(size, 384, 512), atol=1e-3)
