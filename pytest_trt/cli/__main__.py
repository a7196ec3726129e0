"""``python -m pytest_trt.cli``: the same command line, by its folder."""

from pytest_trt.cli.main import main

if __name__ == "__main__":
    main(prog_name="pytest-trt")
