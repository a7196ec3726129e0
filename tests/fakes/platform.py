"""A machine for the doctor that nobody has: a table of what it answers."""

from __future__ import annotations

import fnmatch
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pytest_trt.doctor.platform import MARK, Ran

if TYPE_CHECKING:
    from collections.abc import Mapping

OURS = (
    "numpy>=1.24", "pytest>=9.0", "pytest-benchmark>=5.3.1", "tomli>=2; python_version < '3.11'",
    "onnxruntime>=1.17; extra == 'cpu'", "tensorrt>=8.6; extra == 'tensorrt'",
    "cuda-bindings>=12.6; extra == 'tensorrt'", "torch>=2.4; extra == 'torch'", "ruff>=0.14; extra == 'lint'",
)  # fmt: skip
CORE = {"pytest-trt": "0.1.0", "numpy": "2.4.0", "pytest": "9.2.0", "pytest-benchmark": "5.3.1"}
H100 = {"name": "NVIDIA H100", "capability": [9, 0], "memory": 80 << 30}


def told(**facts: Any) -> Ran:
    """What a probe answers."""
    return Ran(0, f"some banner\n{MARK}{json.dumps(facts)}\n")


def cuda(version: tuple[int, int] = (13, 0), init: int = 0, *devices: Mapping[str, Any]) -> Ran:
    return told(version=list(version), init=init, devices=list(devices or ([H100] if not init else [])))


@dataclass(frozen=True)
class FakePlatform:
    """Answers a probe by the first word of ``probes`` that its code holds; without one, the module is missing."""

    system: str = "Linux"
    machine: str = "x86_64"
    release: str = "6.8.0"
    python: tuple[int, int, int] = (3, 11, 7)
    bits: int = 64
    environment: Mapping[str, str] = field(default_factory=dict)
    site: tuple[str, ...] = ("/venv/lib/python3.11/site-packages",)
    versions: Mapping[str, str] = field(default_factory=lambda: dict(CORE))
    needs: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: {"pytest-trt": OURS})
    modules: tuple[str, ...] = ()
    programs: Mapping[str, Ran] = field(default_factory=dict)
    folders: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    probes: Mapping[str, Ran] = field(default_factory=dict)

    def version(self, package: str) -> str | None:
        return self.versions.get(package)

    def requires(self, package: str) -> list[str]:
        return list(self.needs.get(package, ()))

    def finds(self, module: str) -> bool:
        return module in self.modules

    def which(self, program: str) -> str | None:
        return f"/usr/bin/{program}" if program in self.programs else None

    def files(self, folder: str, pattern: str) -> list[str]:
        return [name for name in self.folders.get(folder, ()) if fnmatch.fnmatch(name, pattern)]

    def says(self, code: str) -> Ran:
        missing = Ran(1, "", "OSError: libcuda.so.1: cannot open shared object file: No such file or directory\n")
        return next((ran for word, ran in self.probes.items() if word in code), missing)

    def runs(self, *words: str) -> Ran:
        return self.programs.get(words[0].rpartition("/")[2], Ran(None, "", "No such file or directory"))
