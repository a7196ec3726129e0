"""Pictures as networks meet them: lines of drawn text, and photographs."""

from __future__ import annotations

import io
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.foreign.wheels import Unavailable, file_of

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["line_of_text", "photograph"]

PHOTOGRAPHS = "scikit-image==0.26.0"
NAMES = ("astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg", "motorcycle_right.png", "camera.png")
WORDS = [
    "harbour",
    "ticket",
    "7.90",
    "winter",
    "Lisbon",
    "gate",
    "B12",
    "fragile",
    "paper",
    "open",
    "18:30",
    "No.4",
    "salt",
    "lemon",
    "route",
    "66",
    "keep",
    "dry",
]


def line_of_text(rng: np.random.Generator, height: int, width: int) -> NDArray[np.uint8]:
    """Words in ink on paper, of any size that fits, blurred and noisy; RGB (height, width, 3).

    Raises:
        Unavailable: Pillow is not installed.
    """
    pillow = _pillow()
    text = " ".join(rng.choice(WORDS, rng.integers(1, 5)))
    size = float(rng.uniform(0.4, 0.8) * height)
    font = pillow.ImageFont.load_default(size)
    if font.getlength(text) > 0.95 * width:
        font = pillow.ImageFont.load_default(size * 0.95 * width / font.getlength(text))
    paper, ink = rng.uniform(140, 255, 3), rng.uniform(0, 100, 3)
    if rng.random() < 0.25:
        paper, ink = ink, paper
    mask = pillow.Image.new("L", (width, height))
    place = (float(rng.uniform(1, 0.05 * width)), height / 2)
    pillow.ImageDraw.Draw(mask).text(place, text, 255, font, anchor="lm")
    covered = np.asarray(mask.filter(pillow.ImageFilter.GaussianBlur(rng.uniform(0, 1))), np.float32)[..., None] / 255
    picture = paper + (ink - paper) * covered + rng.normal(0, rng.uniform(1, 9), (height, width, 3))
    return np.clip(picture, 0, 255).astype(np.uint8)


def photograph(rng: np.random.Generator, size: int, wheels: Path) -> NDArray[np.uint8]:
    """A square cut out of one of scikit-image's photographs, also mirrored, brighter or darker; RGB (size, size, 3).

    Raises:
        Unavailable: Pillow is not installed, or the photographs can't be fetched.
    """
    pillow = _pillow()
    whole = _opened(NAMES[0] if rng.random() < 0.5 else str(rng.choice(NAMES)), wheels)
    side = int(min(whole.size) * rng.uniform(0.45, 1))
    left, top = (int(rng.integers(0, length - side + 1)) for length in whole.size)
    cut = whole.resize((size, size), pillow.Image.Resampling.BILINEAR, (left, top, left + side, top + side))
    values = np.asarray(cut, np.float32)[:, :: int(rng.choice([-1, 1]))]
    lit: NDArray[np.uint8] = np.clip(values * rng.uniform(0.6, 1.25), 0, 255).astype(np.uint8)
    return lit


@cache
def _opened(name: str, wheels: Path) -> Any:
    return _pillow().Image.open(io.BytesIO(file_of(PHOTOGRAPHS, f"skimage/data/{name}", wheels))).convert("RGB")


def _pillow() -> Any:
    try:
        import PIL
        import PIL.Image
        import PIL.ImageDraw
        import PIL.ImageFilter
        import PIL.ImageFont
    except ImportError:
        raise Unavailable("pictures are drawn by Pillow: pip install Pillow") from None
    return PIL
