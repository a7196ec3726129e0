"""mypy of the backend against TensorRT's own Python bindings, of each release whose interface differs.

    python .ci/tensorrt_stubs.py        # exit 0: sound, 1: not sound, 3: could not be checked here

The bindings are small wheels without the library. They are imported here beside empty libraries of the names that they
load, only to be described by pybind11-stubgen; nothing of that is kept.
"""

from __future__ import annotations

import ast
import ctypes
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "tensorrt-cu13-bindings"
NOT_CHECKED = 3

# By release: what mypy must find in PROBE. With no stub in its way mypy takes everything from a missing module.
RELEASES = {"10.16.1.11": {"no_such"}, "11.4.0.106": {"no_such", "FP16"}}
PROBE = "import tensorrt as trt\n\nprint(trt.Builder.no_such, trt.BuilderFlag.FP16, trt.BuilderFlag.TF32)\n"

# What the release with calibrators reports of a cast, the release without them does not.
LENIENT = ["--no-warn-redundant-casts", "--no-warn-unused-ignores", "--untyped-calls-exclude=tensorrt"]
STUBS_ARE_NOT_OURS = '\n[[tool.mypy.overrides]]\nmodule = ["tensorrt", "tensorrt.*"]\nignore_errors = true\n'

# What pybind11 gives a class beside what can be read off it.
UNSEEN = {
    "Dims": "def __iter__(self) -> collections.abc.Iterator[int]: ...",
    "IHostMemory": "def __buffer__(self, flags: int, /) -> memoryview: ...",
}


class NotCheckedError(Exception):
    """This machine lacks what the check needs."""


def main() -> int:
    """Check every release; say what was found."""
    files = [path for path in sorted((ROOT / "pytest_trt").rglob("*.py")) if _imports_tensorrt(path)]
    if not files:
        print("no module of pytest_trt imports tensorrt, so this check has lost what it was made for", file=sys.stderr)
        return 1
    try:
        with tempfile.TemporaryDirectory() as folder:
            found = [_check(version, files, Path(folder) / version) for version in RELEASES]
    except NotCheckedError as error:
        print(f"not checked: {error}", file=sys.stderr)
        return NOT_CHECKED
    return 0 if all(found) else 1


def _imports_tensorrt(path: Path) -> bool:
    return re.search(r"^\s*(import tensorrt\b|from tensorrt\b)", path.read_text(), re.MULTILINE) is not None


def _check(version: str, files: list[Path], folder: Path) -> bool:
    bindings = _unpacked(version, folder)
    _write_empty_libraries(bindings / "tensorrt" / "tensorrt.so", folder)
    return _judged(version, files, _described(bindings, folder), folder)


def _unpacked(version: str, folder: Path) -> Path:
    """A folder to import ``tensorrt`` from: the wheel's package, by the name that the library's own wheel gives it."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    done = _run([*command, "--dest", str(folder), f"{PACKAGE}=={version}"])
    if done.returncode:
        raise NotCheckedError(f"pip has no {PACKAGE} {version} for this machine: {_last_line(done.stderr)}")
    [wheel] = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "bindings")
    (folder / "bindings" / "tensorrt_bindings").rename(folder / "bindings" / "tensorrt")
    return folder / "bindings"


def _write_empty_libraries(bindings: Path, folder: Path) -> None:
    """Libraries of TensorRT's names, whose functions give 0: importing the bindings asks for the parser's version."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise NotCheckedError("there is no C compiler (cc) to make empty libraries with")
    libraries, functions = _needed(bindings)
    source = folder / "empty.c"
    source.write_text("".join(f"void *{function}(void) {{ return 0; }}\n" for function in functions))
    (folder / "lib").mkdir()
    for library in libraries:
        subprocess.run([compiler, "-shared", "-fPIC", "-o", str(folder / "lib" / library), str(source)], check=True)


def _needed(bindings: Path) -> tuple[list[str], list[str]]:
    """NVIDIA's libraries that the bindings load, and the C functions that they want and this process has not."""
    if find_spec("elftools") is None:
        raise NotCheckedError("pyelftools is not installed")
    from elftools.elf.elffile import ELFFile

    here = ctypes.CDLL(None)
    with bindings.open("rb") as file:
        elf = ELFFile(file)
        libraries = [tag.needed for tag in elf.get_section_by_name(".dynamic").iter_tags("DT_NEEDED")]
        symbols = elf.get_section_by_name(".dynsym").iter_symbols()
        wanted = [s.name for s in symbols if s["st_shndx"] == "SHN_UNDEF" and s["st_info"]["bind"] == "STB_GLOBAL"]
    functions = [name for name in wanted if not name.startswith("_") and not hasattr(here, name)]
    return [library for library in libraries if library.startswith("libnv")], functions


def _described(bindings: Path, folder: Path) -> Path:
    """A folder to have mypy look for ``tensorrt`` in."""
    if find_spec("pybind11_stubgen") is None:
        raise NotCheckedError("pybind11-stubgen is not installed")
    command = [sys.executable, "-m", "pybind11_stubgen", "tensorrt", "--print-invalid-expressions-as-is"]
    environment = {**os.environ, "LD_LIBRARY_PATH": str(folder / "lib"), "PYTHONPATH": str(bindings)}
    done = _run([*command, "--output-dir", str(folder / "stubs")], environment)
    stub = folder / "stubs" / "tensorrt" / "tensorrt.pyi"
    if done.returncode or not stub.is_file():
        raise SystemExit(f"pybind11-stubgen could not describe the bindings:\n{done.stderr}")
    stub.write_text(_valid(stub.read_text()))
    return folder / "stubs"


def _valid(stub: str) -> str:
    """The stub with Python's names for C++'s, int where an int is meant, and loose where it is no Python.

    Raises:
        SyntaxError: it is no Python still.
    """
    classes = set(re.findall(r"^class (\w+)", stub, re.MULTILINE))

    def python_name(match: re.Match[str]) -> str:
        names = (match[1], match[1].removeprefix("I"))
        return next((name for name in names if name in classes), "typing.Any")

    stub = re.sub(r"\bnv\w+::(?:\w+::)*(\w+)", python_name, stub)
    stub = re.sub(r"<\w+\.\w+: -?\d+>", "...", stub)  # an enum's member as a default
    # What a callback is given is an int; it could not be overridden as taking one otherwise.
    stub = stub.replace("typing.SupportsInt", "int").replace("typing.SupportsFloat", "float")
    for name, method in UNSEEN.items():
        stub = re.sub(rf"^class {name}\b.*:$", rf"\g<0>\n    {method}", stub, count=1, flags=re.MULTILINE)
    stub = "\n".join(_loose(_taking_sequences(line)) for line in stub.splitlines()) + "\n"
    ast.parse(stub)
    return stub


def _taking_sequences(line: str) -> str:
    """A method that is given Dims takes any sequence; a callback, which is handed Dims, stays as it is."""
    if re.match(r" *def (set|add)_", line):
        return re.sub(r": Dims\b", ": Dims | collections.abc.Sequence[int]", line)
    return line


def _loose(line: str) -> str:
    """A signature that Python can't read (a parameter called ``in``) as one that takes anything."""
    match = re.fullmatch(r"( *def \w+)\(.*:", line)
    try:
        ast.parse(f"{line.strip()} ..." if match else "")
    except SyntaxError:
        return f"{match[1]}(*args: typing.Any, **kwargs: typing.Any) -> typing.Any:" if match else line
    return line


def _judged(version: str, files: list[Path], stubs: Path, folder: Path) -> bool:
    probe, configuration = folder / "probe.py", folder / "pyproject.toml"
    probe.write_text(PROBE)
    configuration.write_text((ROOT / "pyproject.toml").read_text() + STUBS_ARE_NOT_OURS)
    command = [sys.executable, "-m", "mypy", "--config-file", str(configuration), "--no-error-summary", *LENIENT]
    command += ["--cache-dir", str(folder.parent / "cache"), *map(str, [*files, probe])]
    done = _run(command, {**os.environ, "MYPYPATH": str(stubs)})
    lines = done.stdout.splitlines()
    probed = [line for line in lines if line.startswith(f"{probe}:")]
    if set(re.findall(r'has no attribute "(\w+)"', "".join(probed))) != RELEASES[version] or done.stderr:
        raise SystemExit(f"mypy can't check against TensorRT {version}:\n{done.stdout}{done.stderr}")
    told = [line for line in lines if line not in probed]
    errors = sum(": error:" in line for line in told)
    print("\n".join([*told, f"TensorRT {version}: modules checked {len(files)}, errors {errors}"]), flush=True)
    return not told


def _run(command: list[str], environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "pip said nothing")


if __name__ == "__main__":
    sys.exit(main())
