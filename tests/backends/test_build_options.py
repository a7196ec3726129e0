from __future__ import annotations

from pathlib import Path

import pytest

from pytest_trt.backends.build_options import BuildOptions, anchored, merged, read_build_options, read_word
from pytest_trt.errors import SpecError


def test_every_option_has_a_reader_and_keeps_its_default_when_it_is_not_told() -> None:
    assert merged() == BuildOptions()
    with pytest.raises(SpecError) as told:
        read_build_options({"": 1}, "build")
    for name in BuildOptions.__dataclass_fields__:
        assert name in str(told.value)


def test_the_later_table_counts() -> None:
    assert merged({"typing": "weak", "refit": True}, {"typing": "strong"}) == BuildOptions(typing="strong", refit=True)


@pytest.mark.parametrize(
    ("text", "size"),
    [("512M", 2**29), ("2G", 2**31), ("2GiB", 2**31), ("64", 2**26), ("4096K", 2**22), ("1.5g", 3 * 2**29)],
)
def test_a_size_is_read_with_its_unit_and_without_one_in_mib(text: str, size: int) -> None:
    assert read_build_options({"workspace": text}, "build") == {"workspace": size}


def test_tactic_sources_can_be_none() -> None:
    assert read_build_options({"tactic_sources": "none"}, "build") == {"tactic_sources": ()}
    assert read_build_options({"tactic_sources": ["cublas", "cudnn"]}, "build") == {
        "tactic_sources": ("CUBLAS", "CUDNN")
    }


def test_compute_capabilities_are_read_as_texts_and_as_numbers() -> None:
    for value in ("8.6,8.9", [8.6, 8.9], ["8.6", "8.9"]):
        assert read_build_options({"compute_capabilities": value}, "build") == {"compute_capabilities": ("8.6", "8.9")}


def test_a_key_alone_switches_on() -> None:
    assert read_word("refit") == ("refit", "true")
    assert read_word(" refit = off ") == ("refit", "off")


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"workspaec": "2G"}, "did you mean 'workspace'"),
        ({"typing": "stong"}, "did you mean 'strong'"),
        ({"workspace": "2 potatoes"}, "must be a size"),
        ({"workspace": "0"}, "must be a size"),
        ({"workspace": "\u00b2"}, "must be a size"),
        ({"workspace": "9" * 400}, "must be a size"),
        ({"workspace": "99999999999999G"}, "must be a size"),
        ({"device": "\u00b2"}, "at least 0"),
        ({"compute_capabilities": "8.\u00b2"}, 'such as "8.9"'),
        ({"optimization_level": 6}, "from 0 to 5"),
        ({"optimization_level": True}, "from 0 to 5"),
        ({"honoured": 1.5}, "share from 0 to 1"),
        ({"honoured": True}, "share from 0 to 1"),
        ({"refit": "perhaps"}, "true or false"),
        ({"refit": 1}, "true or false"),
        ({"dla_core": -1}, "at least 0"),
        ({"calibration_cache": ""}, "not empty"),
        ({"plugins": 3}, "list of texts"),
        ({"compute_capabilities": "89"}, 'such as "8.9"'),
        ({"hardware_compatibility": "ampere"}, "did you mean 'ampere_plus'"),
    ],
)
def test_a_value_that_can_not_be_is_refused_in_words(table: dict[str, object], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        read_build_options(table, "build")


def test_paths_start_from_where_they_were_written() -> None:
    values = {"timing_cache": "a.cache", "plugins": ("p.so",), "refit": True}

    assert anchored(values, Path("/models")) == {
        "timing_cache": "/models/a.cache",
        "plugins": ("/models/p.so",),
        "refit": True,
    }
