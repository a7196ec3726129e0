"""Take one network through everything, and say what came out."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from benchmarks.foreign.judging import Judging
from benchmarks.foreign.specimen import NoPlace, Planted, Specimen
from benchmarks.foreign.specimens import DEFECTS, TWINS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from benchmarks.foreign.draws import Foreign

__all__ = ["healthy_of", "planted_of"]

Row = dict[str, Any]
CALIBRATED = ("int8", "fp8")


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


def planted_of(network: Foreign, judging: Judging, specimens: Iterable[Specimen] = (*TWINS, *DEFECTS)) -> list[Row]:
    """What is said of every specimen that the network has a place for."""
    chosen = [one for one in specimens if not one.only or network.name in one.only]
    planted = {f"{index:02}": _plant(one, network, judging.folder / f"{index:02}") for index, one in enumerate(chosen)}
    cases = {name: replace(one.case, name=name) for name, one in planted.items() if isinstance(one, Planted)}
    asked = [(case, [chosen[int(name)].precision]) for name, case in cases.items()]
    own = [(case, precisions) for case, precisions in asked if _planted(planted[case.name]).own_golden]
    if own:
        judging("own", own, "--trt-update-golden")
    judged = judging("planted", asked)
    return [_row(chosen[int(name)], one, network, judged, name) for name, one in planted.items() if one is not None]


def _planted(one: Planted | str | None) -> Planted:
    assert isinstance(one, Planted)
    return one


def _plant(specimen: Specimen, network: Foreign, folder: Path) -> Planted | str | None:
    """The deployment; None where the network has no place for it, and why it could not be made otherwise."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        return specimen.plant(network, folder)
    except NoPlace:
        return None
    except Exception as error:  # another tool's, of any kind: told in the results
        return f"{type(error).__name__}: {error}"[:300]


def _row(specimen: Specimen, one: Planted | str, network: Foreign, judged: Any, name: str) -> Row:
    row = {
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
