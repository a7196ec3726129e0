"""Take one network through everything, and say what came out."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.foreign.draws import drawn
from benchmarks.foreign.judging import Judging
from benchmarks.foreign.specimen import NoPlace, Planted, Refused, Specimen
from benchmarks.foreign.specimens import DEFECTS, TWINS
from benchmarks.foreign.truth import is_worse, truth_of
from benchmarks.foreign.wheels import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from benchmarks.foreign.draws import Foreign
    from benchmarks.foreign.judging import Judged
    from pytest_trt.case.case import Case

__all__ = ["Asked", "healthy_of", "measured", "planted_of"]

Row = dict[str, Any]
CALIBRATED = ("int8", "fp8")


@dataclass(frozen=True)
class Asked:
    """What is run: how many draws, at which precisions, whether defects are planted, and which checkout judges."""

    folder: Path
    wheels: Path
    checkout: Path
    precisions: tuple[str, ...]
    seeds: int
    planted: bool


def measured(name: str, asked: Asked) -> dict[str, list[Any]]:
    """All that is asked of one network; what can't be had is skipped with its reason."""
    found: dict[str, list[Any]] = {"rows": [], "seconds": [], "truth": [], "skipped": []}
    judging = Judging(asked.folder / name / "judging", asked.checkout)
    try:
        for seed in range(asked.seeds):
            network = drawn(name, asked.folder, asked.wheels, seed)
            rows, seconds = healthy_of(network, seed, asked.precisions, judging)
            found["rows"] += rows
            found["seconds"].append(seconds)
            print(name, seed, *(f"{row['precision']} {row['verdict']}" for row in rows), flush=True)
        if asked.planted:
            network = drawn(name, asked.folder, asked.wheels, 0)
            rows, files = planted_of(network, judging)
            found["rows"] += rows
            found["truth"] = truth_of(network, files, found["rows"])
            for row in rows:
                row["worse"] = is_worse([one for one in found["truth"] if one["file"] == row["name"]])
    except Unavailable as reason:
        print(f"{name} is skipped: {reason}", flush=True)
        found["skipped"].append({"network": name, "reason": str(reason)})
    return found


def healthy_of(network: Foreign, seed: int, precisions: Sequence[str], judging: Judging) -> tuple[list[Row], Row]:
    """The golden of one draw, and the healthy deployments that it judges.

    Each precision is asked with the calibration samples of the golden's maker and, where it is calibrated, with the
    other samples.

    Returns:
        a row a verdict, and the seconds of CPU of the two processes.
    """
    network.golden.unlink(missing_ok=True)
    made = judging("golden", [(network.case, precisions)], "--trt-update-golden", f"--trt-precision={precisions[0]}")
    own = judging("healthy", [(network.case, precisions)])
    other = replace(network.case, name="other", calibration=str(network.other))
    asked = [precision for precision in precisions if precision in CALIBRATED]
    others = judging("other", [(other, asked)]) if asked else own
    told = [("the maker's calibration", own, network.name, precision) for precision in precisions]
    told += [("other calibration", others, "other", precision) for precision in asked]
    rows = [
        {"network": network.name, "name": name, "precision": precision, "seed": seed, "expected": [], "tensors": []}
        | _said(judged.results.get((case, precision)), judged.said, network.folder.parent)
        for name, judged, case, precision in told
    ]
    return rows, {"network": network.name, "seed": seed, "golden": made.seconds, "gate": own.seconds}


def planted_of(
    network: Foreign, judging: Judging, specimens: Iterable[Specimen] = (*TWINS, *DEFECTS)
) -> tuple[list[Row], dict[str, Path]]:
    """What is said of every specimen that the network has a place for, and again where what was said is followed.

    Returns:
        a row a verdict, and the files by the name of their twin.
    """
    chosen = list(specimens)
    planted = {f"{index:02}": _plant(one, network, judging.folder / f"{index:02}") for index, one in enumerate(chosen)}
    cases = {name: replace(one.case, name=name) for name, one in planted.items() if isinstance(one, Planted)}
    asked = [(case, [chosen[int(name)].precision]) for name, case in cases.items()]
    own = [pair for pair in asked if getattr(planted[pair[0].name], "own_golden", False)]
    if own:
        judging("own", own, "--trt-update-golden")
    judged = judging("planted", asked)
    rows = [_row(chosen[int(name)], one, network, judged, name) for name, one in planted.items() if one is not None]
    files = {
        one.name: Path(str(cases[f"{i:02}"].onnx))
        for i, one in enumerate(chosen)
        if f"{i:02}" in cases and not one.expected
    }
    followed = _followed(network, judging, {name: (chosen[int(name)], case) for name, case in cases.items()}, judged)
    return rows + followed, files


def _followed(
    network: Foreign, judging: Judging, cases: Mapping[str, tuple[Specimen, Case]], judged: Judged
) -> list[Row]:
    """Where the first finding says what to keep in fp32, that is done, literally: it must pass."""
    mended: list[tuple[Specimen, Case]] = []
    for name, (specimen, case) in cases.items():
        finding = next(iter(judged.results.get((name, specimen.precision), {}).get("findings", ())), None)
        keep = re.search(r"keep = (\[[^\]]+\])", f"{finding['message']} {finding['remedy']}") if finding else None
        if keep and specimen.precision != "model":
            golden = str(judging.folder / name / "kept.safetensors")
            kept = (*case.keep, *json.loads(keep[1]))
            mended.append((specimen, replace(case, name=f"{name}-kept", keep=kept, golden=golden)))
    asked = [(case, [specimen.precision]) for specimen, case in mended]
    if not asked:
        return []
    judging("kept-golden", asked, "--trt-update-golden")
    again = judging("kept", asked)
    return [
        _row(
            replace(specimen, name=f"{specimen.name}, kept as told", expected=frozenset()),
            Planted(case),
            network,
            again,
            case.name,
        )
        for specimen, case in mended
    ]


def _plant(specimen: Specimen, network: Foreign, folder: Path) -> Planted | str | None:
    """The deployment; None where the network has no place for it, and why it could not be made otherwise."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        planted = specimen.plant(network, folder)
        if specimen.precision == "model":  # the file has already what is kept
            planted = replace(planted, case=replace(planted.case, keep=()))
        return planted
    except NoPlace:
        return None
    except Refused as reason:
        return str(reason)
    except Exception as error:  # another tool's, of any kind: told in the results
        return f"{type(error).__name__}: {error}"[:300]


def _row(specimen: Specimen, one: Planted | str, network: Foreign, judged: Judged, name: str) -> Row:
    row: Row = {
        "network": network.name,
        "name": specimen.name,
        "precision": specimen.precision,
        "seed": 0,
        "expected": sorted(specimen.expected),
        "warns": specimen.warns,
    }
    if isinstance(one, str):
        return row | {"tensors": [], "verdict": "not planted", "codes": [], "first": one}
    said = _said(judged.results.get((name, specimen.precision)), judged.said, network.folder.parent)
    return row | {"tensors": sorted(one.tensors)} | said


def _said(result: Mapping[str, Any] | None, lines: str, folder: Path) -> Row:
    """Verdict, codes, the first finding, and every output's error and bound."""
    if result is None:
        return {"verdict": "no record", "codes": [], "first": lines[-500:]}
    findings = result["findings"]
    first = findings[0] if findings else {"message": result["message"], "evidence": {}}
    return {
        "verdict": result["verdict"],
        "codes": [finding["code"] for finding in findings],
        "severities": [finding["severity"] for finding in findings],
        "first": first["message"].replace(f"{folder}/", ""),
        "named": sorted(_texts(first["evidence"])),
        "outputs": {name: [seen["error"], seen["bound"]] for name, seen in result["outputs"].items()},
    }


def _texts(value: Any) -> set[str]:
    if isinstance(value, str):
        return {value}
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return {text for part in parts for text in _texts(part)}
