"""Scenes of the `motion` set: a textured shape whose class is how it moves, frame by frame as arrays.

A single frame cannot tell the class, by construction: position (on a torus), angle and size (on a cyclic
scale) are uniform at every instant whatever the class, and a class only moves one of them at a steady
random rate.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

FRAMES, FPS, SIZE = 24, 15.0, 64

# Which coordinate a class moves, and which way; y points down and angles turn clockwise on the screen.
CLASSES: dict[str, tuple[str, int]] = {
    "slide-left": ("x", -1),
    "slide-right": ("x", 1),
    "slide-up": ("y", -1),
    "slide-down": ("y", 1),
    "turn-clockwise": ("angle", 1),
    "turn-anticlockwise": ("angle", -1),
    "grow": ("size", 1),
    "shrink": ("size", -1),
}
# Share of a full cycle covered in a clip: torus width, turn, size range.
RATES = {"x": (0.35, 0.8), "y": (0.35, 0.8), "angle": (0.25, 0.6), "size": (0.4, 0.7)}
# Outer radius in pixels at the ends of the cyclic size scale; the largest still fits on the torus without
# meeting itself.
RADII = (12.0, 27.0)

# Rendered at twice the size and averaged down: smooth edges, and half a pixel is the grid that scenes roll
# on.
_OVER = 2
_CANVAS = SIZE * _OVER
_TEMPLATE = 96


@dataclass(frozen=True)
class Track:
    """The state in each frame, as shares of a full cycle in [0, 1): x, y, angle, size, each (FRAMES,)
    float64.
    """

    x: np.ndarray
    y: np.ndarray
    angle: np.ndarray
    size: np.ndarray


def track(label: str, rng: np.random.Generator) -> Track:
    """Draw the states of one clip of class `label`."""
    moving, direction = CLASSES[label]
    states = {}
    # One draw order for every class: clips of two classes from one generator state differ in their motion
    # alone.
    starts, speed = rng.random(4), rng.random()
    for name, start in zip(("x", "y", "angle", "size"), starts, strict=True):
        low, high = RATES[name]
        rate = direction * (low + (high - low) * speed) if name == moving else 0.0
        states[name] = (start + rate * np.arange(FRAMES) / (FRAMES - 1)) % 1.0
    return Track(**states)


def frames(label: str, rng: np.random.Generator) -> np.ndarray:
    """Render one clip of class `label`: (FRAMES, SIZE, SIZE, 3) uint8 RGB."""
    states = track(label, rng)
    alpha, texture = _shape(rng)
    ground, paint = _colours(rng)
    background = ground + _smooth_noise(rng, _CANVAS, waves=3)[..., None] * rng.uniform(0.03, 0.08)
    paint_texture = rng.uniform(0.05, 0.12)
    shake = _shake(rng)
    gain = _brightness(rng)
    grain = rng.uniform(0.01, 0.03)
    # Pictures of the noise are rolled and flipped between frames: fresh grain for a tenth of the cost.
    grains = rng.standard_normal((4, SIZE, SIZE, 3), dtype=np.float32) * np.float32(grain)
    out = np.empty((FRAMES, SIZE, SIZE, 3), np.uint8)
    for i in range(FRAMES):
        mask, shade = _place(alpha, texture, states.angle[i], states.size[i])
        x, y = round(states.x[i] * _CANVAS), round(states.y[i] * _CANVAS)
        mask, shade = np.roll(mask, (y, x), (0, 1)), np.roll(shade, (y, x), (0, 1))
        scene = background + mask[..., None] * (paint + paint_texture * shade[..., None] - background)
        scene = np.roll(scene, shake[i], (0, 1))
        frame = cv2.resize(scene, (SIZE, SIZE), interpolation=cv2.INTER_AREA) * gain[i]
        frame += np.roll(grains[rng.integers(4)], tuple(rng.integers(SIZE, size=2)), (0, 1))
        out[i] = np.clip(frame * 255 + 0.5, 0, 255)
    return out


def _colours(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    # A contrast far above 2 x 8/255, so that a perturbation of that size can hide no shape.
    contrast = rng.uniform(0.4, 0.6)
    dark = rng.uniform(0.12, 0.9 - contrast)
    tints = rng.uniform(-0.08, 0.08, (2, 3))
    pair = [dark + tints[0], dark + contrast + tints[1]]
    if rng.random() < 0.5:
        pair.reverse()
    return pair[0].astype(np.float32), pair[1].astype(np.float32)


def _shake(rng: np.random.Generator) -> np.ndarray:
    """Camera offsets (FRAMES, 2) in canvas pixels: a slow sway plus jitter."""
    t = np.arange(FRAMES)[:, None] / FRAMES
    sway = rng.uniform(0, 1.5, 2) * np.sin(2 * np.pi * (rng.uniform(0.5, 2, 2) * t + rng.random(2)))
    return np.rint((sway + rng.normal(0, 0.5, (FRAMES, 2))) * _OVER).astype(int)


def _brightness(rng: np.random.Generator) -> np.ndarray:
    t = np.arange(FRAMES) / FRAMES
    swing = rng.uniform(0, 0.08) * np.sin(2 * np.pi * (rng.uniform(0.5, 2) * t + rng.random()))
    return (1 + swing + rng.normal(0, 0.01, FRAMES)).astype(np.float32)


def _smooth_noise(rng: np.random.Generator, size: int, waves: int) -> np.ndarray:
    """A periodic (size, size) float32 texture of unit variance made of the lowest `waves` frequencies."""
    spectrum = np.zeros((size, size), complex)
    for row in range(-waves, waves + 1):
        spectrum[row, : waves + 1] = rng.normal(size=waves + 1) + 1j * rng.normal(size=waves + 1)
    spectrum[0, 0] = 0
    field = np.fft.ifft2(spectrum).real
    return (field / field.std()).astype(np.float32)


def _shape(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A random outline and its own texture, each (_TEMPLATE, _TEMPLATE) float32, filling the unit disc."""
    kind = rng.integers(len(_OUTLINES) + 1)
    if kind == len(_OUTLINES):
        corners = rng.integers(5, 9)
        turns = (np.arange(corners) + rng.uniform(-0.25, 0.25, corners)) * 2 * np.pi / corners
        points = np.stack([np.cos(turns), np.sin(turns)], 1) * rng.uniform(0.55, 1, (corners, 1))
        # Squeezed, since a nearly round shape would hide its turning.
        points[:, 1] *= rng.uniform(0.45, 0.65)
    else:
        points = np.array(_OUTLINES[kind]) * rng.uniform(0.85, 1.1, 2)
    points /= np.linalg.norm(points, axis=1).max()
    alpha = np.zeros((_TEMPLATE, _TEMPLATE), np.uint8)
    middle = (_TEMPLATE - 1) / 2
    # fillPoly takes fixed-point corners: 4 fractional bits.
    corners_fixed = np.rint((middle + points * (middle - 2)) * 16).astype(np.int32)
    cv2.fillPoly(alpha, [corners_fixed], 255, cv2.LINE_AA, shift=4)
    return alpha.astype(np.float32) / 255, _smooth_noise(rng, _TEMPLATE, waves=4)


def _place(alpha: np.ndarray, texture: np.ndarray, angle: float, size: float) -> tuple[np.ndarray, np.ndarray]:
    """Turn and scale the shape about the canvas's corner-wrapped origin: mask and texture (_CANVAS,
    _CANVAS).
    """
    radius = RADII[0] * (RADII[1] / RADII[0]) ** size * _OVER
    scale = radius / (_TEMPLATE / 2)
    cos, sin = scale * np.cos(2 * np.pi * angle), scale * np.sin(2 * np.pi * angle)
    source, target = (_TEMPLATE - 1) / 2, _CANVAS // 2
    matrix = np.array([[cos, -sin, 0.0], [sin, cos, 0.0]])
    matrix[:, 2] = target - matrix[:, :2] @ (source, source)
    mask = cv2.warpAffine(alpha, matrix, (_CANVAS, _CANVAS), flags=cv2.INTER_LINEAR)
    shade = cv2.warpAffine(texture, matrix, (_CANVAS, _CANVAS), flags=cv2.INTER_LINEAR)
    return mask, shade


# Corners of outlines that show their turning; y points down.
_OUTLINES: tuple[tuple[tuple[float, float], ...], ...] = (
    # bar
    ((-1, -0.35), (1, -0.35), (1, 0.35), (-1, 0.35)),
    # L
    ((-0.6, -0.9), (-0.1, -0.9), (-0.1, 0.4), (0.7, 0.4), (0.7, 0.9), (-0.6, 0.9)),
    # T
    ((-0.8, -0.8), (0.8, -0.8), (0.8, -0.3), (0.28, -0.3), (0.28, 0.9), (-0.28, 0.9), (-0.28, -0.3),
     (-0.8, -0.3)),
    # arrow
    ((1, 0), (0.2, 0.7), (0.2, 0.28), (-0.9, 0.28), (-0.9, -0.28), (0.2, -0.28), (0.2, -0.7)),
    # cross with one long arm
    ((-0.25, -0.6), (0.25, -0.6), (0.25, -0.2), (0.65, -0.2), (0.65, 0.25), (0.25, 0.25), (0.25, 1),
     (-0.25, 1), (-0.25, 0.25), (-0.65, 0.25), (-0.65, -0.2), (-0.25, -0.2)),
    # triangle
    ((1, 0), (-0.7, 0.6), (-0.7, -0.6)),
)  # fmt: skip
