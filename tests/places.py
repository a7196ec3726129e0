"""Where the repository and its examples lie."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[1]
DIGITS = ROOT / "examples" / "digits"
