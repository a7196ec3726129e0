"""``pytest-trt golden``: make a candidate, look at it, adopt it with a reason; show, compare and verify goldens."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pytest_trt.case.case_file import cases_in, files_of, has_cases, quoted, shown_from
from pytest_trt.cli._console import Line, Table, as_json, say, watched
from pytest_trt.errors import CaseError, GoldenRefused, MissingGolden, SpecError, unknown
from pytest_trt.plugin.settings import golden_dir
from pytest_trt.precision import Precision

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pytest_trt.case.case import Case
    from pytest_trt.cli._console import Part
    from pytest_trt.golden.diff import ArrayChange, BoundChange, GoldenDifference
    from pytest_trt.golden.golden import Golden
    from pytest_trt.golden.load import Verification

__all__ = ["command", "facts", "golden_folder", "parts"]

_Command = TypeVar("_Command", bound="Callable[..., Any]")
_FILE = click.Path(path_type=Path)


def options(command: _Command) -> _Command:
    """``--file`` and ``--golden-dir``, which every command on cases takes."""
    file = click.option(
        "--file", "files", type=_FILE, multiple=True, help="A file of cases; default: those of this folder."
    )
    folder = click.option("--golden-dir", type=_FILE, help="Folder of the goldens; default: where pytest finds them.")
    return file(folder(command))


def cases_of(names: Iterable[str], files: Iterable[Path]) -> list[Case]:
    """The named cases, or all where none is named.

    Raises:
        CaseError: there is no file of cases, or one of the cases can't be read.
        SpecError: no case has this name; names the nearest.
    """
    found = _read(files)
    names = list(names)
    if not names:
        return [_case(case) for case in found]
    by_name = {case.name: case for case in found if not isinstance(case, CaseError)}
    broken = next((case for case in found if isinstance(case, CaseError)), None)
    for name in names:
        if name not in by_name:
            raise broken or unknown("case", name, by_name)
    return [by_name[name] for name in dict.fromkeys(names)]


def golden_folder(given: Path | None) -> Path:
    """The folder of goldens: the one given, else the one that pytest, called in this folder, would take.

    Raises:
        SpecError: pytest can't read its configuration.
    """
    if given is not None:
        return given
    import pytest

    try:
        config = pytest.Config.fromdictargs({}, ["--capture=no"])  # else it opens files that nobody closes
    except (Exception, SystemExit) as error:  # whatever pytest or a conftest.py raises
        raise SpecError(
            f"pytest can't be set up here, so its golden folder is not known ({error}): name it with --golden-dir."
        ) from error
    return _shortened(golden_dir(config))


def _read(files: Iterable[Path]) -> list[Case | CaseError]:
    here = Path.cwd()
    chosen = list(files) or files_of(here)
    if not chosen:
        raise CaseError(f"{here} has no trt.toml, *.trt.toml or pyproject.toml with [[tool.pytest-trt.model]]: --file.")
    for path in chosen:
        if path.is_file() and not has_cases(path):
            raise CaseError(
                f"{path} is no file of cases: name a trt.toml, *.trt.toml or a pyproject.toml with our table."
            )
    return [case for path in chosen for case in cases_in(path.absolute(), shown_from(path.absolute(), here))]


def _case(case: Case | CaseError) -> Case:
    if isinstance(case, CaseError):
        raise case
    return case


def _shortened(folder: Path) -> Path:
    """Relative to the current folder where it is inside, for messages."""
    try:
        return folder.relative_to(Path.cwd())
    except ValueError:
        return folder


_MEND = "pytest-trt golden create"


@click.group(name="golden")
def command() -> None:
    """Make, look at, adopt and verify goldens.

    A golden is made in two steps: `create` writes a candidate beside it and prints what would change, `adopt` puts it
    in its place with a reason that is kept. Neither does anything where CI is set.
    """


@command.command()
@click.argument("names", nargs=-1)
@options
@as_json
def create(names: tuple[str, ...], files: tuple[Path, ...], golden_dir: Path | None, as_json: bool) -> None:
    """Write a candidate for the golden of each case (all, or those NAMEd), and print what it would change."""
    from pytest_trt.case.reference import find_golden
    from pytest_trt.golden.diff import candidate_of, propose

    folder = golden_folder(golden_dir)
    lines: list[str] = []
    made: dict[str, Any] = {}
    cases = cases_of(names, files)
    for case in cases:
        told = propose(case, folder, watched())
        made[case.name] = {"candidate": str(candidate_of(find_golden(case, folder))), "changes": told}
        lines += told
    names_again = " ".join(quoted(case.name) for case in cases)
    lines.append(f"look at it, then: pytest-trt golden adopt {names_again} --reason TEXT")
    say(lines, made, json_wanted=as_json)


@command.command()
@click.argument("names", nargs=-1, required=True)
@click.option("--reason", required=True, help="Why; kept in the golden.")
@options
@as_json
def adopt(names: tuple[str, ...], reason: str, files: tuple[Path, ...], golden_dir: Path | None, as_json: bool) -> None:
    """Put the candidates of the NAMEd cases in their goldens' places, if all of them may be adopted."""
    from pytest_trt.golden.diff import adopt as put_in_place
    from pytest_trt.golden.diff import adoptable

    folder = golden_folder(golden_dir)
    cases = cases_of(names, files)
    for case in cases:
        adoptable(case, folder, reason)
    told = {case.name: put_in_place(case, folder, reason) for case in cases}
    lines = [line for changed in told.values() for line in changed]
    say(lines, {name: {"changes": changed} for name, changed in told.items()}, json_wanted=as_json)


@command.command()
@click.argument("golden", metavar="FILE|NAME")
@options
@as_json
def show(golden: str, files: tuple[Path, ...], golden_dir: Path | None, as_json: bool) -> None:
    """Print what a golden holds: who made it, its arrays, how much they move, and its bounds."""
    from pytest_trt.golden.golden import read

    found = read(_place(golden, files, golden_dir), _MEND)
    say(parts(found), facts(found), json_wanted=as_json)


@command.command()
@click.argument("before", metavar="FILE|NAME")
@click.argument("after", metavar="[FILE]", required=False)
@options
@as_json
@click.pass_context
def diff(
    ctx: click.Context,
    before: str,
    after: str | None,
    files: tuple[Path, ...],
    golden_dir: Path | None,
    as_json: bool,
) -> None:
    """Compare two goldens, or a golden with its candidate where only one is named.

    Exit code 0 if they judge alike (the same arrays and bounds, of the same model), 1 if not.
    """
    from pytest_trt.golden.diff import candidate_of, golden_difference
    from pytest_trt.golden.golden import read

    first = _place(before, files, golden_dir)
    second = _place(after, files, golden_dir) if after else candidate_of(first)
    if not after and first.is_file() and not second.is_file():
        raise MissingGolden(f"there is no candidate {second}. Make it: {_MEND}; or name a second golden.")
    found = golden_difference(read(first, _MEND), read(second, _MEND))
    say(_difference(found, first, second), {**asdict(found), "same": found.same}, json_wanted=as_json)
    ctx.exit(0 if found.same else 1)


@command.command()
@click.argument("names", nargs=-1)
@options
@as_json
@click.pass_context
def verify(
    ctx: click.Context, names: tuple[str, ...], files: tuple[Path, ...], golden_dir: Path | None, as_json: bool
) -> None:
    """Compute the goldens' outputs again by their fp32 models, and see whether they agree; nothing is written.

    Exit code 0 if every golden is whole and agrees, 1 if not.
    """
    from pytest_trt.golden.load import verify as verified

    folder = golden_folder(golden_dir)
    found = [verified(case, folder) for case in cases_of(names, files)]
    told = {one.case: {**asdict(one), "holds": one.holds} for one in found}
    say([part for one in found for part in _verified(one)], told, json_wanted=as_json)
    ctx.exit(0 if all(one.holds for one in found) else 1)


def parts(golden: Golden) -> list[Part]:
    """A golden for a person."""
    made = golden.provenance
    lines: list[Part] = [
        Line(golden.source, "head"),
        f"  of the model {golden.model_sha256 or 'that it lies beside'}, outputs by {golden.origin}",
        f"  made with {', '.join(f'{name} {made[name]}' for name in _packages(made)) or 'nothing that is told'}",
        f"  inputs {made.get('inputs', '?')}, seed {made.get('seed', '?')}",
        f"  reason: {made.get('reason') or 'none told'}",
        *([f"  adopted {made['adopted']}"] if "adopted" in made else []),
        *([Line("  a candidate, not adopted yet", "doubt")] if made.get("candidate") else []),
    ]
    arrays = facts(golden)["arrays"]
    rows = [(a["part"], a["name"], f"{a['dtype']}{a['shape']}", _figure(a.get("moves"))) for a in arrays]
    bounds = [
        (precision, name, _figure(entry["error"]), _figure(entry["bound"]))
        for precision, entries in sorted(golden.envelope.items(), key=_order)
        for name, entry in entries.items()
    ]
    refused = [f"  {precision}: no bound: {why}" for precision, why in golden.refused.items()]
    return [
        *lines,
        Table(("array", "name", "what", "moves by"), tuple(rows)),
        Table(("precision", "output", "simulated error", "bound"), tuple(bounds)),
        *refused,
    ]


def facts(golden: Golden) -> dict[str, Any]:
    """The same for a program."""
    arrays = [("input", golden.inputs), ("output", golden.outputs), ("onnx", golden.onnx_outputs)]
    labels = {} if golden.labels is None else {"": golden.labels}
    return {
        "source": golden.source,
        "model_sha256": golden.model_sha256,
        "origin": golden.origin,
        "provenance": dict(golden.provenance),
        "arrays": [
            {"part": part, "name": name, "dtype": str(array.dtype), "shape": list(array.shape)}
            | ({"moves": golden.evidence[name]} if part == "output" and name in golden.evidence else {})
            for part, held in (*arrays, ("labels", labels))
            for name, array in held.items()
        ],
        "envelope": {key: dict(entries) for key, entries in golden.envelope.items()},
        "refused": dict(golden.refused),
    }


def _order(entry: tuple[str, Any]) -> int:
    """Precisions as the project lists them; what it does not know comes last."""
    known = Precision.labels()
    return known.index(entry[0]) if entry[0] in known else len(known)


def _packages(made: Any) -> list[str]:
    known = ("pytest-trt", "onnx", "onnxruntime", "torch", "numpy", "python")
    return [name for name in known if name in made]


def _place(word: str, files: tuple[Path, ...], golden_dir: Path | None) -> Path:
    """A file as it is named, else the golden of the case of this name."""
    from pytest_trt.case.reference import find_golden

    path = Path(word)
    if path.is_file() or path.suffix == ".safetensors":
        return path
    [case] = cases_of([word], files)
    place = find_golden(case, golden_folder(golden_dir))
    if place.is_dir():
        raise GoldenRefused(f"the golden of {word} is ONNX test data, {place}, and no file: name a golden's file.")
    return place


def _difference(found: GoldenDifference, first: Path, second: Path) -> list[Part]:
    lines: list[Part] = [Line(f"{first} -> {second}", "head")]
    if not found.model:
        lines.append(Line("  made from another model", "doubt"))
    rows = [_array_row(change) for change in found.arrays]
    lines.append(Table(("array", "name", "relative RMS", "largest", "elements"), tuple(rows)))
    if found.bounds:
        lines.append(Table(("precision", "output", "bound", "was"), tuple(_bound_row(one) for one in found.bounds)))
    lines += [f"  {key}: {old!r} -> {new!r}" for key, (old, new) in found.provenance.items()]
    end = "they judge alike" if found.same else "they do not judge alike"
    return [*lines, Line(end, "good" if found.same else "doubt")]


def _array_row(change: ArrayChange) -> tuple[str | Line, ...]:
    if change.same:
        return (change.part, change.name, "same", "", "")
    if change.rel_rms is None:
        kinds = f"{change.before or 'new'} -> {change.after or 'gone'}"
        return (change.part, change.name, Line(kinds, "doubt"), "", "")
    rel_rms = Line(f"{change.rel_rms:.2e}", "doubt")
    return (change.part, change.name, rel_rms, _figure(change.max_abs), str(change.different))


def _bound_row(change: BoundChange) -> tuple[str, ...]:
    return (change.precision, change.output, _figure(change.after) or "gone", _figure(change.before) or "none")


def _verified(found: Verification) -> list[Part]:
    if found.fault:
        return [Line(f"{found.case}: {found.fault}", "bad")]
    verdict = "agrees" if found.holds else "does not agree"
    fresh = "" if found.fresh else "; the model's bytes are others than the golden was made from"
    lines: list[Part] = [Line(f"{found.case}: {found.golden} {verdict}{fresh}", "good" if found.holds else "bad")]
    return lines + [
        f"  {one.by} output {one.output!r}: {_figure(one.error)} off, at most {one.limit:g}" for one in found.agreements
    ]


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
