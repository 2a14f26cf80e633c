"""Videos show the nearest frame of each view on a common clock, and decode to what was written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from show_fakes import decoded_frames, plain_scene

from actionprep.errors import SetupError, UserError
from actionprep.show.colors import DARK
from actionprep.show.images import surroundings
from actionprep.show.timeline import Bar, TimelineRow
from actionprep.show.video import video_frames, video_layout, video_times, write_video

RED, BLUE = (220, 40, 40), (40, 60, 220)


def test_video_has_all_frames_at_their_times(tmp_path: Path) -> None:
    times = np.array([2.0, 2.04, 2.1, 2.5, 2.52])  # not evenly spaced
    images = [np.full((48, 64, 3), 30 + 40 * number, np.uint8) for number in range(5)]
    done: list[int] = []
    path = write_video(images, tmp_path / "video.mp4", times=times, progress=done.append)
    frames, shown = decoded_frames(path)
    assert np.allclose(shown, times - 2.0, atol=1e-4)
    assert [round(float(frame.mean()), -1) for frame in frames] == [30, 70, 110, 150, 190]
    assert done == [1] * 5


def test_video_is_h264_with_a_common_pixel_format(tmp_path: Path) -> None:
    import av

    path = write_video([np.zeros((48, 64, 3), np.uint8)] * 3, tmp_path / "video.mp4", times=np.arange(3) / 25)
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert (context.codec.canonical_name, context.pix_fmt) == ("h264", "yuv420p")
        assert container.streams.video[0].average_rate == 25


def test_failed_video_leaves_no_file(tmp_path: Path) -> None:
    def images():
        yield np.zeros((48, 64, 3), np.uint8)
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write_video(images(), tmp_path / "video.mp4", times=np.arange(2) / 25)
    assert list(tmp_path.iterdir()) == []


def test_write_video_requires_images_an_extension_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Videos are written as \.mp4 files; got video\.avi"):
        write_video([], tmp_path / "video.avi", times=np.zeros(1))
    with pytest.raises(UserError, match="No images to write"):
        write_video([], tmp_path / "video.mp4", times=np.zeros(0))
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(SetupError, match="Write to another folder with --out"):
        write_video([np.zeros((48, 64, 3), np.uint8)], tmp_path / "file" / "video.mp4", times=np.zeros(1))


def test_views_of_different_rates_show_their_nearest_frames() -> None:
    slow, fast = plain_scene("slow", np.arange(10) / 10), plain_scene("fast", 0.02 + np.arange(25) / 25)
    times = video_times([slow, fast])
    assert np.allclose(times, np.append(fast.times, []))
    for scene in (slow, fast):
        nearest = [int(np.argmin(np.abs(scene.times - time) - 1e-9 * np.arange(len(scene))[::-1])) for time in times]
        assert [scene.nearest(float(time)) for time in times] == nearest
    images = list(video_frames([slow, fast], times, title="t"))
    assert len(images) == 25
    layout = video_layout([slow, fast], columns=6, most=(1080, 1920), below=0)
    for time, image in zip(times, images, strict=True):
        for scene, (x, y, width, height) in zip((slow, fast), layout.boxes, strict=True):
            assert image[y + height // 2, x + width // 2, 0] == scene.nearest(float(time))


@given(
    times=st.lists(st.integers(0, 400), min_size=2, max_size=30, unique=True).map(lambda found: np.sort(found) / 40),
    time=st.floats(-3, 14),
)
def test_the_nearest_moment_is_the_nearest(times: np.ndarray, time: float) -> None:
    found = plain_scene("0", times).nearest(time)
    step = float(np.median(np.diff(times)))
    if found is None:
        assert time < times[0] - step or time > times[-1] + step
    else:
        assert abs(times[found] - time) <= np.abs(times - time).min() + 1e-6


def test_frames_that_repeat_are_asked_for_once() -> None:
    slow, fast = plain_scene("slow", np.arange(4) / 4), plain_scene("fast", np.arange(40) / 40)
    list(video_frames([slow, fast], video_times([slow, fast]), title="t"))
    assert slow.images.asked == [0, 1, 2, 3]


def test_a_view_without_a_frame_at_a_time_shows_an_empty_place() -> None:
    long, short = plain_scene("long", np.arange(40) / 10), plain_scene("short", 1 + np.arange(10) / 10)
    images = list(video_frames([long, short], video_times([long, short]), title="t"))
    x, y, _, _ = video_layout([long, short], columns=6, most=(1080, 1920), below=0).boxes[1]
    corner = [tuple(image[y + 2, x + 2].tolist()) for image in images]
    assert corner[0] == corner[39] == DARK.empty
    assert corner[15] == (5, 5, 5)


def test_video_starts_with_the_earliest_view() -> None:
    early, fast = plain_scene("early", np.arange(20) / 10), plain_scene("fast", 1 + np.arange(50) / 50)
    times = video_times([early, fast])
    assert times[0] == 0
    assert (np.diff(times) > 0).all()
    assert np.isin(fast.times, times).all()


@given(
    sizes=st.lists(st.tuples(st.integers(32, 2000), st.integers(32, 2000)), min_size=1, max_size=9),
    columns=st.integers(1, 8),
)
def test_video_layout_places_views_in_the_frame_without_overlap(sizes: list[tuple[int, int]], columns: int) -> None:
    scenes = [plain_scene(str(at), [0.0], height=high, width=wide) for at, (high, wide) in enumerate(sizes)]
    layout = video_layout(scenes, columns=columns, most=(1080, 1920), below=50)
    assert layout.width % 2 == layout.height % 2 == 0
    taken = np.zeros((layout.height, layout.width), bool)
    for x, y, width, height in layout.boxes:
        assert 0 <= x <= x + width <= layout.width
        assert 0 <= y <= y + height <= layout.height - 50
        assert not taken[y : y + height, x : x + width].any()
        taken[y : y + height, x : x + width] = True


def test_bars_lie_below_with_a_line_at_the_time() -> None:
    scene = plain_scene("0", np.arange(10) / 10)
    rows = [TimelineRow("segments", (Bar(0.0, 0.5, "sit"), Bar(0.5, 1.0, "rise")))]
    colors = {"sit": RED, "rise": BLUE}
    images = list(video_frames([scene], scene.times, title="t", rows=rows, span=(0.0, 1.0), colors=colors))
    red, blue = (
        np.argwhere(np.any([(image == color).all(axis=2) for image in images], axis=0)) for color in (RED, BLUE)
    )
    (top, low), high = red.min(axis=0), blue[:, 1].max()
    assert red[:, 1].max() < blue[:, 1].min() <= red[:, 1].max() + 4
    for number, image in enumerate(images):
        above = image[top - 3].min(axis=1)  # above the bars there is only the line
        assert np.flatnonzero(above > 200).mean() == pytest.approx(low + number / 10 * (high - low), abs=3)


def test_the_label_of_the_time_stands_above() -> None:
    scene = plain_scene("0", np.arange(10) / 10)
    row = TimelineRow("prediction", (Bar(0.0, 0.5, "sit", 0.9), Bar(0.3, 0.7, "rise", 0.95)))
    colors = {"sit": RED, "rise": BLUE}
    images = list(video_frames([scene], scene.times, title="t", rows=[row], span=(0, 1), colors=colors, current=row))
    for number, expected in ((1, RED), (4, BLUE), (6, BLUE), (8, None)):
        above = images[number][:50]
        for color in (RED, BLUE):
            assert bool((above == color).all(axis=2).sum() > 100) == (color == expected)


@given(
    region=st.tuples(st.floats(0, 600), st.floats(0, 400), st.floats(1, 600), st.floats(1, 400)),
    height=st.integers(401, 1100),
    width=st.integers(601, 2000),
)
def test_surroundings_hold_the_region_and_stay_in_the_image(
    region: tuple[float, float, float, float], height: int, width: int
) -> None:
    x, y, wide, high = region
    x1, y1 = min(x + wide, width), min(y + high, height)
    box = surroundings((x, y, x1, y1), height, width)
    assert 0 <= box[0] <= x + 1
    assert x1 - 1 <= box[2] <= width
    assert 0 <= box[1] <= y + 1
    assert y1 - 1 <= box[3] <= height
    assert (box[2] - box[0]) >= 0.29 * width


def test_surroundings_of_nothing_are_the_whole_image() -> None:
    assert surroundings((0, 0, 0, 0), 480, 640) == (0, 0, 640, 480)
    assert surroundings((np.nan, 0, 5, 5), 480, 640) == (0, 0, 640, 480)
    assert surroundings((20, 20, 620, 460), 480, 640) == (0, 0, 640, 480)
