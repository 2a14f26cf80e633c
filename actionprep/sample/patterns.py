"""Textures with corners to track: seamless noise, cloth, tiles, bricks and boards, and the colors of the clothes."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from actionprep.sample.body import GARMENTS

CLOTH_CELLS = 64
"""Cells along each side of the seamless texture volume of the clothes."""

CLOTH_CELL_SIZE = 0.01
"""Side of one such cell, meters."""


def band_noise(shape: tuple[int, ...], *, wavelength: float, rng: np.random.Generator) -> np.ndarray:
    """Seamless noise in [0, 1] whose features repeat about every `wavelength` cells, in 2 or 3 dimensions."""
    spectrum = np.fft.rfftn(rng.normal(size=shape))
    axes = [np.fft.fftfreq(side) for side in shape[:-1]] + [np.fft.rfftfreq(shape[-1])]
    frequency = np.sqrt(sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij")))
    spectrum *= np.exp(-0.5 * ((frequency * wavelength - 1.0) / 0.3) ** 2)
    noise = np.fft.irfftn(spectrum, s=shape, axes=range(len(shape)))
    return np.asarray(0.5 + 0.5 * np.tanh(1.2 * noise / noise.std()))


@lru_cache(maxsize=1)
def cloth_volumes() -> np.ndarray:
    """Solid textures (cloths, z, y, x) uint8: a garment takes its color from the position of its surface in the volume."""
    rng = np.random.default_rng(7)
    side = CLOTH_CELLS
    volume = (side, side, side)
    z, y, x = np.meshgrid(*[np.arange(side)] * 3, indexing="ij")
    fine = band_noise(volume, wavelength=5.0, rng=rng)
    coarse = band_noise(volume, wavelength=9.0, rng=rng)
    wide = band_noise(volume, wavelength=16.0, rng=rng)
    tile = 8
    checks = ((z // tile + x // tile + y // tile) % 2) * 0.65 + 0.35 * fine
    stripes = (z // tile % 2) * 0.55 + 0.45 * np.clip(2.5 * (coarse - 0.5) + 0.5, 0, 1)
    dots = band_noise(volume, wavelength=8.0, rng=rng)
    cloths = [
        0.35 + 0.3 * coarse + 0.3 * (fine - 0.5),
        np.clip(2.5 * (coarse - 0.5) + 0.5 + 0.8 * (wide - 0.5), 0, 1),
        checks,
        stripes,
        np.clip(6.0 * (dots - 0.72) + 0.5, 0, 1),
    ]
    return np.stack([np.round(255 * np.clip(cloth, 0, 1)).astype(np.uint8) for cloth in cloths])


def wardrobe(subject: int, session: int) -> tuple[np.ndarray, np.ndarray]:
    """Clothes of one subject in one session.

    Returns cloth (G,) indices into the volumes and palette (G, 256, 3) float32 RGB, for the G garments.
    """
    rng = np.random.default_rng([11, subject, session])
    skins = [(226, 178, 144), (196, 142, 104), (150, 100, 70), (240, 200, 170), (112, 74, 52)]
    hairs = [(46, 32, 24), (104, 70, 38), (176, 140, 84), (30, 28, 30), (120, 118, 116)]
    person = np.random.default_rng([13, subject])
    skin = np.array(skins[(subject * 2) % len(skins)], float)
    hair = np.array(hairs[person.integers(len(hairs))], float)
    hue = (subject * 0.381966 + session * 0.23) % 1.0
    shirt_dark, shirt_light = _hsv(hue, 0.75, 0.38), _hsv(hue + rng.uniform(0.08, 0.5), 0.35, 0.98)
    trousers_hue = hue + rng.uniform(0.35, 0.65)
    long_sleeves = person.random() < 0.5
    cloths = {
        "skin": (0, skin * 0.72, np.minimum(skin * 1.12, 255)),
        "hair": (1, hair * 0.6, np.minimum(hair * 1.5, 255)),
        "shirt": (1 + int(rng.integers(4)), shirt_dark, shirt_light),
        "trousers": (1 + int(rng.integers(2)), _hsv(trousers_hue, 0.5, 0.22), _hsv(trousers_hue, 0.3, 0.66)),
        "shoe": (1, _hsv(trousers_hue + 0.2, 0.3, 0.15), _hsv(trousers_hue + 0.2, 0.2, 0.6)),
    }
    cloths["sleeve"] = cloths["shirt"] if long_sleeves else cloths["skin"]
    ramp = np.linspace(0.0, 1.0, 256)[:, None]
    palette = [cloths[name][1] * (1 - ramp) + cloths[name][2] * ramp for name in GARMENTS]
    return np.array([cloths[name][0] for name in GARMENTS]), np.stack(palette).astype(np.float32)


@lru_cache(maxsize=8)
def surface(kind: str, variant: int) -> np.ndarray:
    """A seamless image (256, 256, 3) float32 RGB of "boards", "bricks", "paper", "crate" or "cabinet"."""
    rng = np.random.default_rng([17, variant, sum(kind.encode())])
    side = 256
    v, u = np.meshgrid(np.arange(side), np.arange(side), indexing="ij")
    grain = band_noise((side, side), wavelength=10.0, rng=rng)
    broad = band_noise((side, side), wavelength=50.0, rng=rng)
    if kind == "boards":
        lane = u // 32
        shade = rng.uniform(0.75, 1.1, 8)[lane]
        streaks = np.roll(grain[::4].repeat(4, axis=0), 31, axis=1)
        tone = shade * (0.8 + 0.35 * streaks) * np.where((u % 32 < 2) | ((v + 77 * lane) % 128 < 2), 0.6, 1.0)
        color = np.array([150.0, 112.0, 78.0]) if variant % 2 == 0 else np.array([128.0, 122.0, 112.0])
    elif kind == "bricks":
        row = v // 16
        column = (u + 16 * (row % 2)) % side // 32
        shade = rng.uniform(0.7, 1.15, (16, 8))[row, column]
        mortar = (v % 16 < 2) | ((u + 16 * (row % 2)) % 32 < 2)
        tone = np.where(mortar, 1.25, shade) * (0.85 + 0.25 * grain)
        color = np.array([150.0, 92.0, 74.0]) if variant % 2 == 0 else np.array([140.0, 138.0, 128.0])
    elif kind == "paper":
        tone = 0.75 + 0.2 * broad + 0.25 * (grain > 0.62)
        color = np.array([118.0, 142.0, 150.0]) if variant % 2 == 0 else np.array([150.0, 142.0, 112.0])
    elif kind == "crate":
        frame = (u % 128 < 12) | (u % 128 > 115) | (v % 128 < 12) | (v % 128 > 115)
        tone = np.where(frame, 1.1, 0.7 + 0.15 * (v // 16 % 2)) * (0.8 + 0.35 * grain)
        color = np.array([168.0, 128.0, 76.0])
    elif kind == "cabinet":
        doors = (u % 128 < 3) | (v % 64 < 3)
        tone = np.where(doors, 0.5, 0.9) * (0.9 + 0.15 * broad) + 0.12 * (grain - 0.5)
        color = np.array([84.0, 116.0, 124.0]) if variant % 2 == 0 else np.array([124.0, 86.0, 92.0])
    else:
        raise ValueError(f"no surface '{kind}'")
    return np.clip(tone[..., None] * color, 0, 255).astype(np.float32)


def _hsv(hue: float, saturation: float, value: float) -> np.ndarray:
    wheel = np.clip(np.abs((hue * 6 + np.array([0.0, 4.0, 2.0])) % 6 - 3) - 1, 0, 1)
    return np.asarray(255 * value * (1 - saturation * (1 - wheel)))
