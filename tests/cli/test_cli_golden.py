"""``pytest-trt golden``: candidate first, adopted with a reason."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import networks
import numpy as np
import pytest
from click.testing import CliRunner, Result

from pytest_trt.case.case import Case
from pytest_trt.cli._golden import golden_folder
from pytest_trt.cli.main import main
from pytest_trt.errors import CaseError
from pytest_trt.gate import check
from pytest_trt.golden.diff import adopt, candidate_of, propose
from pytest_trt.golden.golden import read


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with net.onnx and its trt.toml, which is the current folder."""
    networks.save(networks.convolutional(), tmp_path / "net.onnx")
    (tmp_path / "trt.toml").write_text('[[model]]\nonnx = "net.onnx"\nsamples = 4\n')
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ran(*words: str) -> Result:
    return CliRunner().invoke(main, ["golden", *words])


def adopted(folder: Path) -> Path:
    assert ran("create").exit_code == 0
    assert ran("adopt", "net", "--reason", "first").exit_code == 0
    return folder / "golden" / "net.safetensors"


def other_model(folder: Path) -> None:
    networks.save(networks.convolutional(seed=9), folder / "net.onnx")


def test_create_writes_a_candidate_and_leaves_the_golden_alone(folder: Path) -> None:
    golden = adopted(folder)
    before = golden.read_bytes()
    other_model(folder)

    found = ran("create")

    assert found.exit_code == 0, found.output
    assert golden.read_bytes() == before
    assert (folder / "golden" / "net.candidate.safetensors").is_file()
    assert "changed by a relative RMS" in found.output
    assert "pytest-trt golden adopt net --reason TEXT" in found.output


def test_adopt_keeps_the_reason_and_the_time_and_takes_the_candidate_away(folder: Path) -> None:
    golden = adopted(folder)

    provenance = read(golden, "").provenance
    assert provenance["reason"] == "first"
    assert provenance["adopted"].endswith("Z")
    assert "candidate" not in provenance
    assert not candidate_of(golden).exists()
    assert check(Case(onnx="net.onnx", samples=4), "fp16", golden_dir="golden").passed


def test_adopt_without_a_reason_is_refused() -> None:
    ran("create")

    assert ran("adopt", "net").exit_code == 2
    assert "for a reason" in ran("adopt", "net", "--reason", " ").output


def test_adopt_of_a_candidate_that_is_not_there_says_how_to_make_it() -> None:
    found = ran("adopt", "net", "--reason", "why")

    assert found.exit_code == 2
    assert "pytest-trt golden create net" in found.output


def test_adopt_of_several_adopts_none_where_one_can_not_be(folder: Path) -> None:
    (folder / "trt.toml").write_text(
        '[[model]]\nonnx = "net.onnx"\nsamples = 4\n[[model]]\nname = "other"\nonnx = "net.onnx"\n'
    )
    ran("create", "net")

    found = ran("adopt", "net", "other", "--reason", "both")

    assert found.exit_code == 2
    assert "pytest-trt golden create other" in found.output
    assert not (folder / "golden" / "net.safetensors").exists()
    assert (folder / "golden" / "net.candidate.safetensors").is_file()


def test_commands_that_are_told_quote_names(folder: Path) -> None:
    (folder / "trt.toml").write_text('[[model]]\nname = "my net & co"\nonnx = "net.onnx"\nsamples = 4\n')

    assert 'pytest-trt golden create "my net & co"' in ran("adopt", "my net & co", "--reason", "why").output
    assert 'pytest-trt golden adopt "my net & co" --reason TEXT' in ran("create").output


def test_diff_without_a_candidate_says_so(folder: Path) -> None:
    adopted(folder)

    found = ran("diff", "net")

    assert found.exit_code == 2
    assert "there is no candidate" in found.output
    assert "commit" not in found.output


def test_a_candidate_of_a_model_that_was_changed_since_is_not_adopted(folder: Path) -> None:
    ran("create")
    other_model(folder)

    found = ran("adopt", "net", "--reason", "why")

    assert found.exit_code == 2
    assert "was made from another model" in found.output
    assert not (folder / "golden" / "net.safetensors").exists()


def test_a_golden_under_a_candidates_name_is_not_adopted(folder: Path) -> None:
    golden = adopted(folder)
    candidate_of(golden).write_bytes(golden.read_bytes())

    assert "is no candidate" in ran("adopt", "net", "--reason", "why").output


@pytest.mark.parametrize("words", [("create",), ("adopt", "net", "--reason", "why")])
def test_nothing_is_written_where_ci_is_set(folder: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    ran("create")
    before = sorted(path.read_bytes() for path in (folder / "golden").iterdir())
    monkeypatch.setenv("CI", "true")

    found = ran(*words)

    assert found.exit_code == 2
    assert "where CI is set" in found.output
    assert sorted(path.read_bytes() for path in (folder / "golden").iterdir()) == before


def test_a_candidate_that_was_renamed_is_judged_by_nobody(folder: Path) -> None:
    ran("create")
    candidate = folder / "golden" / "net.candidate.safetensors"
    candidate.rename(folder / "golden" / "net.safetensors")

    verdict = check(Case(onnx="net.onnx"), "fp16", golden_dir="golden")

    assert verdict.verdict == "error"
    assert "is a candidate and no golden yet" in verdict.message


def test_a_case_can_not_be_called_as_a_candidate_is() -> None:
    with pytest.raises(CaseError, match="another golden's candidate"):
        Case(name="net.candidate", onnx="net.onnx")


def test_show_tells_the_reason_the_arrays_and_the_bounds(folder: Path) -> None:
    adopted(folder)

    found = ran("show", "net")
    told = json.loads(ran("show", "golden/net.safetensors", "--json").output)

    assert "reason: first" in found.output
    assert "fp16" in found.output
    assert [a["name"] for a in told["arrays"]] == ["x", "logits"]
    assert told["envelope"]["fp16"]["logits"]["bound"] > 0


def test_diff_of_a_golden_with_its_candidate_finds_what_changed(folder: Path) -> None:
    adopted(folder)
    ran("create")
    assert ran("diff", "net").exit_code == 0
    other_model(folder)
    ran("create")

    found = ran("diff", "net", "--json")

    told = json.loads(found.output)
    assert found.exit_code == 1
    assert [a["part"] for a in told["arrays"] if not a["same"]] == ["output"]
    assert told["arrays"][1]["rel_rms"] > 0
    assert not told["model"]


def test_diff_of_goldens_with_other_shapes_tells_both(folder: Path) -> None:
    golden = adopted(folder)
    golden.rename(folder / "old.safetensors")
    (folder / "trt.toml").write_text('[[model]]\nonnx = "net.onnx"\nsamples = 6\n')
    adopted(folder)

    found = ran("diff", "old.safetensors", "golden/net.safetensors")

    assert found.exit_code == 1
    assert "float32[4," in found.output
    assert "float32[6," in found.output


def test_verify_computes_the_outputs_again(folder: Path) -> None:
    adopted(folder)

    found = ran("verify")

    assert found.exit_code == 0, found.output
    assert "agrees" in found.output


def test_verify_finds_a_model_that_computes_something_else(folder: Path) -> None:
    adopted(folder)
    other_model(folder)

    found = ran("verify", "--json")

    told = json.loads(found.output)["net"]
    assert found.exit_code == 1
    assert not told["fresh"]
    assert told["agreements"][0]["error"] > 1e-3


def test_verify_finds_a_file_that_was_cut_short(folder: Path) -> None:
    golden = adopted(folder)
    golden.write_bytes(golden.read_bytes()[:-8])

    found = ran("verify")

    assert found.exit_code == 1
    assert "DamagedGolden" in found.output


def test_verify_finds_outputs_that_were_changed_in_the_file(folder: Path) -> None:
    golden = adopted(folder)
    data = bytearray(golden.read_bytes())
    data[-4:] = np.float32(3.0).tobytes()
    golden.write_bytes(data)

    assert ran("verify").exit_code == 1


def test_a_name_that_no_case_has_names_the_nearest() -> None:
    found = ran("create", "nte")

    assert found.exit_code == 2
    assert "did you mean 'net'" in found.output


def test_a_folder_without_cases_says_what_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")

    assert "has no trt.toml" in ran("create").output


def test_goldens_go_where_pytest_finds_them(folder: Path) -> None:
    (folder / "pytest.ini").write_text("[pytest]\ntrt_golden_dir = kept\n")

    ran("create")
    ran("adopt", "net", "--reason", "why")

    assert (folder / "kept" / "net.safetensors").is_file()


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc which files are open")
def test_asking_pytest_for_its_golden_folder_leaves_nothing_open() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))

    assert golden_folder(None) == Path("golden")

    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_conftest_that_fails_is_a_message_that_names_the_option(folder: Path) -> None:
    (folder / "conftest.py").write_text("raise RuntimeError('planted')\n")

    found = ran("create")

    assert found.exit_code == 2
    assert "--golden-dir" in found.output
    assert ran("create", "--golden-dir", "golden").exit_code == 0


def test_an_adoption_that_fails_leaves_the_golden_and_the_candidate(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    golden = adopted(folder)
    before = golden.read_bytes()
    case = Case(onnx="net.onnx", base=folder)
    propose(case, folder / "golden")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pytest_trt.golden.golden.write_whole", full)
    with pytest.raises(Exception, match="No space left"):
        adopt(case, folder / "golden", "why")

    assert golden.read_bytes() == before
    assert candidate_of(golden).is_file()


def test_a_candidate_is_no_unused_golden(pytester: pytest.Pytester, folder: Path) -> None:
    networks.save(networks.convolutional(), pytester.path / "net.onnx")
    (pytester.path / "trt.toml").write_text('[[model]]\nonnx = "net.onnx"\n')
    case = Case(onnx="net.onnx", base=pytester.path)
    propose(case, pytester.path / "golden")
    adopt(case, pytester.path / "golden", "why")
    propose(case, pytester.path / "golden")

    found = pytester.runpytest()

    found.assert_outcomes(passed=1)
    found.stdout.no_fnmatch_line("*unused golden*")
