"""``python -m pytest_trt.cli``: the same command line where its script is not on the path."""

from __future__ import annotations

from pytest_trt.cli import main

if __name__ == "__main__":
    main(prog_name="pytest-trt")
