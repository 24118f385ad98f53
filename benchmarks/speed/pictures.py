"""Photographs that nobody took: coloured stripes with noise, as JPEG files, in as many kinds as labels."""

from __future__ import annotations

from pathlib import Path

SIZE = (320, 240)
KINDS = 16


def write(folder: Path, count: int) -> tuple[list[str], list[str]]:
    """Writes them, the same each time.

    Args:
        folder: where; it exists.
        count: how many; the labels come by turns.

    Returns:
        The paths, and the label of each.
    """
    import numpy as np
    from PIL import Image

    draw = np.random.default_rng(0)
    across, down = np.meshgrid(np.linspace(0, 1, SIZE[0]), np.linspace(0, 1, SIZE[1]))
    paths, labels = [], []
    for number in range(count):
        kind = number % KINDS
        angle, colour = np.pi * kind / KINDS, np.array([kind % 4, kind // 4, (kind * 7) % 5]) * 40 + 40
        waves = np.sin((across * np.cos(angle) + down * np.sin(angle)) * (20 + kind) + draw.uniform(0, 6))
        pixels = colour * (0.6 + 0.4 * waves[..., None]) + draw.normal(0, 20, (SIZE[1], SIZE[0], 3))
        path = folder / f"{number:05}.jpg"
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=90)
        paths.append(str(path))
        labels.append(f"kind {kind}")
    return paths, labels
