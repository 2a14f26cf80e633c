"""Degrade images as cheap, distant or compressed cameras do: blur, noise, JPEG, in this order."""

from __future__ import annotations

from typing import Literal

import numpy as np

Kernel = Literal["gaussian", "random"]


def blur_kernel(sigma: float, kind: Kernel, rng: np.random.Generator) -> np.ndarray:
    """Make the kernel of a blur.

    Args:
        sigma: Standard deviation in pixels; for random kernels the largest one.
        kind: "gaussian": round. "random": an unknown camera, a Gaussian of random shape and direction whose standard
            deviations are 0.2 to 1 times `sigma`.
        rng: Random numbers; "gaussian" takes none.

    Returns:
        Weights of shape (K, K) with sum 1, float32; K is odd.

    References:
        Bell-Kligler et al., "Blind Super-Resolution Kernel Estimation using an Internal-GAN", NeurIPS 2019, use random
        anisotropic Gaussians in the same way. They also add noise to the kernel.
    """
    along, across = (sigma, sigma) if kind == "gaussian" else rng.uniform(0.2 * sigma, sigma, 2)
    angle = 0.0 if kind == "gaussian" else rng.uniform(0, np.pi)
    radius = int(np.ceil(3 * sigma))
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    # Narrow kernels would be all zero between two pixels.
    weights = np.exp(-0.5 * ((u / max(along, 0.1)) ** 2 + (v / max(across, 0.1)) ** 2))
    kernel: np.ndarray = (weights / weights.sum()).astype(np.float32)
    return kernel


def blurred(images: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Convolve images, uint8 of shape (B, H, W, 3), with a kernel; borders are reflected."""
    import cv2

    turned = np.ascontiguousarray(kernel[::-1, ::-1])  # OpenCV correlates
    return np.stack([cv2.filter2D(image, -1, turned, borderType=cv2.BORDER_REFLECT_101) for image in images])


def with_noise(images: np.ndarray, sigma: float, seeds: list[list[int]]) -> np.ndarray:
    """Add white Gaussian noise to images.

    Args:
        images: uint8 of shape (B, H, W, 3).
        sigma: Standard deviation in gray levels.
        seeds: Seed of each image, so that the result does not depend on blocks.

    Returns:
        Images of the same shape, rounded and clipped to 0 to 255.
    """
    noisy = np.empty_like(images)
    for row, (image, seed) in enumerate(zip(images, seeds, strict=True)):
        noise = np.random.default_rng(seed).normal(0, sigma, image.shape)
        noisy[row] = np.rint(np.clip(image + noise, 0, 255))
    return noisy


def through_jpeg(images: np.ndarray, quality: int) -> np.ndarray:
    """Encode RGB images, uint8 of shape (B, H, W, 3), as JPEG of a quality from 1 to 100, and decode them."""
    import cv2

    from actionprep.pipeline.frames import encode_jpeg

    decoded = [cv2.imdecode(encode_jpeg(image, quality), cv2.IMREAD_COLOR) for image in images]
    return np.stack([cv2.cvtColor(image, cv2.COLOR_BGR2RGB) for image in decoded])
