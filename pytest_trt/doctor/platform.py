"""Platform: the machine as the checks see it, what one of them found, and what a process of its own answered."""

from __future__ import annotations

import functools
import json
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["ALWAYS", "MARK", "STATES", "Here", "Platform", "Ran", "Symptom", "answer", "broken_of", "counting", "ended"]

ALWAYS = "pytest-trt"
"""What everything needs: its name among the things that a symptom is of matter for."""

STATES = ("good", "absent", "doubt", "broken")
"""good; not there, and needed by some only; works and may be wrong; does not work."""


@dataclass(frozen=True)
class Symptom:
    """What was found.

    Attributes:
        about: the part of the machine, one word: python, packages, driver, gpu, tensorrt, onnxruntime, torch.
        state: one of :data:`STATES`.
        said: what was found, a sentence or a fact.
        remedy: what to do; empty where nothing is to be done.
        needed_by: the backends that it matters for, or :data:`ALWAYS`.
    """

    about: str
    state: str
    said: str
    remedy: str = ""
    needed_by: tuple[str, ...] = ()

    @property
    def bad(self) -> bool:
        """Whether what needs it can't work."""
        return self.state in ("absent", "broken")


def counting(symptoms: Iterable[Symptom], asked: Iterable[str]) -> list[Symptom]:
    """Those that keep what was asked for from working."""
    wanted = {ALWAYS, *asked}
    return [symptom for symptom in symptoms if symptom.bad and wanted.intersection(symptom.needed_by)]


def broken_of(symptoms: Iterable[Symptom], backend: str) -> list[Symptom]:
    """Those that keep one backend from working."""
    return counting(symptoms, (backend,))


# a missing DLL or a crash opens no window on Windows, and waits for nobody
_QUIETLY = "import sys\nif sys.platform == 'win32':\n import ctypes\n ctypes.windll.kernel32.SetErrorMode(3)\n"


@dataclass(frozen=True)
class Ran:
    """A process that ended, or was stopped.

    Attributes:
        code: its exit code; None where it was stopped after the time that it was given, or could not be started.
        out: what it wrote to standard output.
        err: what it wrote to standard error, or why it could not be started.
    """

    code: int | None
    out: str = ""
    err: str = ""


class Platform(Protocol):
    """A machine, asked and never changed.

    Attributes:
        system: "Linux", "Windows" or "Darwin".
        machine: "x86_64", "AMD64", "aarch64".
        release: of the operating system's kernel.
        python: version of Python.
        bits: 32 or 64, of Python.
        environment: environment variables.
        site: folders that packages are installed in.
    """

    @property
    def system(self) -> str: ...  # noqa: D102 - told by the class

    @property
    def machine(self) -> str: ...  # noqa: D102

    @property
    def release(self) -> str: ...  # noqa: D102

    @property
    def python(self) -> tuple[int, int, int]: ...  # noqa: D102

    @property
    def bits(self) -> int: ...  # noqa: D102

    @property
    def environment(self) -> Mapping[str, str]: ...  # noqa: D102

    @property
    def site(self) -> tuple[str, ...]: ...  # noqa: D102

    def version(self, package: str) -> str | None:
        """The installed version of a package; None where it is not installed."""
        ...

    def requires(self, package: str) -> list[str]:
        """What an installed package says that it needs; none where it is not installed."""
        ...

    def finds(self, module: str) -> bool:
        """Whether Python finds a module of this name; it is not imported."""
        ...

    def which(self, program: str) -> str | None:
        """Where a program is found by PATH."""
        ...

    def files(self, folder: str, pattern: str) -> list[str]:
        """Names of the files in a folder that match a shell pattern, sorted; none where there is no such folder."""
        ...

    def says(self, code: str) -> Ran:
        """Run Python code in a process of its own, since an import may end the process that it is made in."""
        ...

    def runs(self, *words: str) -> Ran:
        """Run a program."""
        ...


@dataclass(frozen=True)
class Here:
    """The machine that this runs on; what was asked once is not asked again.

    Attributes:
        timeout: seconds that a process may take.
    """

    timeout: float = 60.0
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    system: str = field(default_factory=platform.system)
    machine: str = field(default_factory=platform.machine)
    release: str = field(default_factory=platform.release)
    python: tuple[int, int, int] = sys.version_info[:3]
    bits: int = 64 if sys.maxsize > 2**32 else 32
    site: tuple[str, ...] = field(default_factory=lambda: tuple(path for path in sys.path if "-packages" in path))

    def version(self, package: str) -> str | None:
        """See :class:`Platform`."""
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version(package)
        except PackageNotFoundError:
            return None

    def requires(self, package: str) -> list[str]:
        """See :class:`Platform`."""
        from importlib.metadata import PackageNotFoundError, requires

        try:
            return requires(package) or []
        except PackageNotFoundError:
            return []

    def finds(self, module: str) -> bool:
        """See :class:`Platform`."""
        from importlib.util import find_spec

        found = find_spec(module)
        return found is not None and found.origin is not None  # a folder of that name is no package

    def which(self, program: str) -> str | None:
        """See :class:`Platform`."""
        return shutil.which(program)

    def files(self, folder: str, pattern: str) -> list[str]:
        """See :class:`Platform`."""
        try:
            return sorted(path.name for path in Path(folder).glob(pattern))
        except (OSError, ValueError):
            return []

    def says(self, code: str) -> Ran:
        """See :class:`Platform`."""
        return _ran((sys.executable, "-X", "utf8", "-c", _QUIETLY + code), self.timeout)

    def runs(self, *words: str) -> Ran:
        """See :class:`Platform`."""
        return _ran(words, self.timeout)


@functools.cache
def _ran(words: tuple[str, ...], timeout: float) -> Ran:
    # the current folder may hold a file called as a package is
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    try:
        found = subprocess.run(
            words, capture_output=True, timeout=timeout, env=environment, stdin=subprocess.DEVNULL, check=False
        )
    except subprocess.TimeoutExpired:
        return Ran(None, "", f"it did not end within {timeout:g} s")
    except OSError as error:
        return Ran(None, "", error.strerror or str(error))
    return Ran(found.returncode, found.stdout.decode(errors="replace"), found.stderr.decode(errors="replace"))


MARK = "pytest-trt-doctor:"
"""What a probe writes before its JSON, so that whatever an import prints is told apart."""

_SIGNALS = {
    4: "an illegal instruction",
    6: "an abort",
    7: "a bus error",
    8: "a division by zero",
    11: "a segmentation fault",
}
_WINDOWS = {
    0xC0000005: "an access violation",
    0xC000001D: "an illegal instruction",
    0xC0000135: "a DLL that is missing",
    0xC0000139: "a DLL of another version (entry point not found)",
    0xC0000409: "a stack overrun",
}


def answer(platform: Platform, code: str) -> tuple[dict[str, Any] | None, str]:
    """The JSON that a probe printed behind :data:`MARK`, and else why there is none."""
    ran = platform.says(code)
    for line in reversed(ran.out.splitlines()):
        if line.startswith(MARK):
            found: dict[str, Any] = json.loads(line.removeprefix(MARK))
            return found, ""
    return None, ended(ran)


def ended(ran: Ran) -> str:
    """How a process ended that did not succeed: its crash, or the last line that it wrote."""
    if ran.code is None:
        return ran.err
    if ran.code & 0xFFFFFFFF in _WINDOWS:
        return f"it ended the process by {_WINDOWS[ran.code & 0xFFFFFFFF]}"
    if ran.code < 0:
        return f"it ended the process by {_SIGNALS.get(-ran.code, f'signal {-ran.code}')}"
    lines = [line.strip() for line in ran.err.splitlines() if line.strip()]
    return lines[-1] if lines else f"it ended with exit code {ran.code}"
