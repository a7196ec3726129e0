"""``python -m pytest_trt``: the command line ``pytest-trt`` where its script is not on the path."""

from pytest_trt.cli.main import main

if __name__ == "__main__":
    main(prog_name="pytest-trt")
