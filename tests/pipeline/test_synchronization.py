"""Estimates of clocks from signals with known offsets and drifts."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from synthetic_signals import bursts, seen_from

from actionprep.datasets.poses.sequence import PoseSequence
from actionprep.pipeline.synchronization.joint import join_pairs
from actionprep.pipeline.synchronization.pairs import PairEstimate, estimate_pair
from actionprep.pipeline.synchronization.signals import Signal, audio_signal, joint_speed, motion_energy


@pytest.mark.parametrize(("offset", "drift", "fps"), [(1.7, 180.0, 25.0), (-2.0, -200.0, 50.0), (0.4, 0.0, 24.0)])
def test_estimate_pair_offset_and_drift(offset: float, drift: float, fps: float):
    rng = np.random.default_rng(3)
    motion = bursts(rng, 420.0)
    a = seen_from(rng, motion, fps=30.0)
    b = seen_from(rng, motion, fps=fps, offset=offset, drift=drift)
    estimate = estimate_pair(a, b)
    assert estimate.sure
    assert estimate.drift == pytest.approx(drift, abs=20)
    aligned = estimate.offset + b.time * (1 + estimate.drift * 1e-6)
    assert np.abs(aligned - (offset + b.time * (1 + drift * 1e-6))).max() < 0.5 / 30
    assert estimate.confidence > 0.4


def test_estimate_pair_swapped_is_the_inverse():
    rng = np.random.default_rng(5)
    motion = bursts(rng, 420.0)
    a, b = seen_from(rng, motion, fps=30.0), seen_from(rng, motion, fps=25.0, offset=0.9, drift=120.0)
    there, back = estimate_pair(a, b), estimate_pair(b, a)
    assert there.lag + back.lag == pytest.approx(0.0, abs=0.02)
    assert there.drift + back.drift == pytest.approx(0.0, abs=10.0)


def test_estimate_pair_long_gap():
    rng = np.random.default_rng(7)
    motion = bursts(rng, 420.0)
    a, b = seen_from(rng, motion, fps=30.0), seen_from(rng, motion, fps=25.0, offset=-1.1, drift=90.0)
    kept = (b.time < 100) | (b.time > 190)
    estimate = estimate_pair(a, Signal(b.time[kept], b.value[kept]))
    assert estimate.sure
    assert estimate.lag == pytest.approx(-1.1 + 90e-6 * estimate.center, abs=0.01)


def test_estimate_pair_short_signal_has_no_drift():
    rng = np.random.default_rng(11)
    motion = bursts(rng, 30.0)
    estimate = estimate_pair(seen_from(rng, motion, fps=30.0), seen_from(rng, motion, fps=30.0, offset=0.5))
    assert estimate.sure
    assert estimate.drift is None
    assert estimate.offset == pytest.approx(0.5, abs=1 / 60)


def test_estimate_pair_unrelated_signals_are_unsure():
    unsure = [
        not estimate_pair(
            *(seen_from(rng, bursts(rng, 90.0), fps=25.0) for _ in range(2)), max_offset=5.0
        ).sure
        for rng in (np.random.default_rng(seed) for seed in range(10))
    ]  # fmt: skip
    assert all(unsure)


def test_estimate_pair_periodic_signal_is_unsure():
    time = np.arange(0, 60, 0.04)
    a, b = (Signal(time, np.sin(2 * np.pi * 1.3 * (time + shift))) for shift in (0.0, 0.2))
    estimate = estimate_pair(a, b)
    assert not estimate.sure
    assert "another offset fits nearly as well" in estimate.reason


@pytest.mark.parametrize(
    ("b", "reason"),
    [
        (Signal(np.arange(0, 60, 0.04), np.ones(1500)), "one of them does not change"),
        (Signal(np.arange(0, 0.2, 0.04), np.arange(5.0)), "there are too few frames"),
        (Signal(100 + np.arange(0, 60, 0.04), np.random.default_rng(0).normal(size=1500)), "share no time within 5 s"),
    ],
)
def test_estimate_pair_without_common_information(b: Signal, reason: str):
    a = Signal(np.arange(0, 60, 0.04), np.random.default_rng(1).normal(size=1500))
    estimate = estimate_pair(a, b)
    assert reason in estimate.reason
    assert estimate.confidence == 0


def _pair(offset: float, drift: float, *, confidence: float = 0.8, reason: str = "") -> PairEstimate:
    none = np.empty(0)
    return PairEstimate(
        offset, drift, offset + drift * 1e-6 * 60, 60.0, 1e-3, 2.0, confidence, reason, none, none, none, none, none
    )


def _pairs(clocks: dict[str, tuple[float, float]]) -> dict[tuple[str, str], PairEstimate]:
    """Exact estimates of all pairs: time = offset + own time * rate for each view."""
    pairs = {}
    for a in clocks:
        for b in clocks:
            if a < b:
                (offset_a, drift_a), (offset_b, drift_b) = clocks[a], clocks[b]
                rate_a, rate_b = Fraction(1) + Fraction(drift_a) / 10**6, Fraction(1) + Fraction(drift_b) / 10**6
                offset = (Fraction(offset_b) - Fraction(offset_a)) / rate_a
                pairs[a, b] = _pair(float(offset), float((rate_b / rate_a - 1) * 10**6))
    return pairs


CLOCKS = {"a": (0.0, 0.0), "b": (1.5, 150.0), "c": (-2.0, -180.0), "d": (0.25, 40.0)}


def test_join_pairs_exact_pairs():
    clocks, rejected = join_pairs(list(CLOCKS), _pairs(CLOCKS), reference="a", tolerance=0.02)
    assert rejected == []
    for view, (offset, drift) in CLOCKS.items():
        assert clocks[view].sure
        assert clocks[view].offset == pytest.approx(offset, abs=1e-3)
        assert clocks[view].drift == pytest.approx(drift, abs=0.1)


def test_join_pairs_leaves_out_a_contradicting_pair():
    pairs = _pairs(CLOCKS)
    pairs["b", "c"] = _pair(-2.9, -330.0)
    clocks, rejected = join_pairs(list(CLOCKS), pairs, reference="a", tolerance=0.02)
    assert rejected == [("b", "c")]
    assert clocks["c"].offset == pytest.approx(-2.0, abs=1e-3)


def test_join_pairs_contradiction_of_three_views_is_unsure():
    pairs = _pairs({view: CLOCKS[view] for view in "abc"})
    pairs["b", "c"] = _pair(-2.9, -330.0)
    clocks, _ = join_pairs(["a", "b", "c"], pairs, reference="a", tolerance=0.02)
    assert [clocks[view].sure for view in "abc"] == [True, False, False]
    assert clocks["b"].reason == "pairs of views contradict each other"


def test_join_pairs_reaches_a_view_through_another():
    pairs = _pairs({view: CLOCKS[view] for view in "abc"})
    pairs["a", "c"] = replace(pairs["a", "c"], reason="the signals hardly correlate (0.05)")
    pairs["b", "c"] = replace(pairs["b", "c"], confidence=0.3)
    clocks, _ = join_pairs(["a", "b", "c"], pairs, reference="a", tolerance=0.02)
    assert clocks["c"].offset == pytest.approx(-2.0, abs=1e-3)
    assert clocks["c"].confidence == 0.3


def test_join_pairs_unconnected_view_gives_the_reason_of_its_pair():
    pair = _pair(0.0, 0.0, confidence=0.0, reason="only 10% of the windows agree")
    clocks, _ = join_pairs(["a", "b"], {("a", "b"): pair}, reference="a", tolerance=0.02)
    assert not clocks["b"].sure
    assert clocks["b"].reason == "only 10% of the windows agree"


def test_motion_energy_of_a_dropped_frame():
    times = np.delete(np.arange(10) / 10, 4)
    change = np.diff(times) * 3.0
    signal = motion_energy(times, change)
    assert np.ptp(signal.value) == pytest.approx(0.0, abs=1e-9)
    assert signal.time[3] == pytest.approx(0.4)


def test_joint_speed_leaves_out_missing_joints():
    xy = np.zeros((5, 1, 2, 2), np.float32)
    xy[:, 0, 1, 0] = 10.0
    xy[:, 0, 0, 1] = [0, 1, 2, 3, 900]
    score = np.ones((5, 1, 2), np.float32)
    score[4, 0, 0] = 0
    poses = PoseSequence(
        keypoints=xy,
        score=score,
        bbox=np.zeros((5, 1, 4), np.float32),
        track_id=np.zeros((5, 1), np.int64),
        filled=np.zeros((5, 1, 2), np.bool_),
        skeleton="two",
        image_size=None,
        frame_index=np.arange(5),
    )
    signal = joint_speed(poses, np.arange(5) / 10)
    assert len(signal.time) == 4
    assert np.ptp(signal.value[:3]) == pytest.approx(0.0, abs=1e-9)
    assert signal.value[3] < signal.value[2]


def test_audio_signal_rises_at_a_click(tmp_path: Path):
    path = tmp_path / "click.wav"
    rate = 16000
    samples = np.zeros(2 * rate, np.int16)
    samples[int(0.75 * rate) : int(0.76 * rate)] = 20000
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate = rate
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    signal = audio_signal(path, start=0.25)
    assert signal is not None
    assert signal.time[np.argmax(signal.value)] == pytest.approx(0.5, abs=0.006)
