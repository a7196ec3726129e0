"""Environment: what a run ran on and was asked for; nothing is imported for it, and git is run once at the most."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from pytest_trt.backends import all_packages

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime
    from pathlib import Path

__all__ = ["environment", "gpus_of", "packages", "source_of", "times"]

_PACKAGES = ("pytest-trt", "pytest", "pytest-benchmark", "numpy", "onnx", *all_packages(), "cuda-bindings")

_GPU = ("gpu", "compute_capability", "cuda_driver", "cuda_runtime", "tensorrt")

_SERVICES = {  # which variable tells of a service, and where it keeps commit, branch and address of the run
    "github": ("GITHUB_ACTIONS", "GITHUB_SHA", ("GITHUB_HEAD_REF", "GITHUB_REF_NAME")),
    "gitlab": ("GITLAB_CI", "CI_COMMIT_SHA", ("CI_COMMIT_REF_NAME",)),
    "jenkins": ("JENKINS_URL", "GIT_COMMIT", ("CHANGE_BRANCH", "GIT_BRANCH", "BRANCH_NAME")),
}

_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]*@")


def environment(root: Path, options: Iterable[str] = ()) -> dict[str, Any]:
    """What the run runs on: versions from package metadata, where its source comes from, and its options.

    Args:
        root: the folder whose repository is asked for commit and branch, where no CI service tells them.
        options: words of the command line; credentials in addresses are left out.
    """
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "packages": packages(),
        "source": source_of(root, os.environ),
        "options": [_CREDENTIALS.sub("", word) for word in options],
    }


def times(started: datetime, now: datetime, *, ended: bool) -> dict[str, Any]:
    """When a run began, when it ended (None while it goes on), ISO 8601 in UTC, and the seconds so far."""
    return {
        "started": started.isoformat(timespec="milliseconds"),
        "finished": now.isoformat(timespec="milliseconds") if ended else None,
        "duration_s": round((now - started).total_seconds(), 3),
    }


def packages() -> dict[str, str]:
    """Versions of the packages that matter here and are installed."""
    return {name: found for name in _PACKAGES if (found := _version(name))}


def gpus_of(results: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The GPUs that engines ran on, each once, with driver and release, as the results' provenance tells them."""
    engines = [result["provenance"].get("engine") or {} for result in results]
    found = [tuple(engine.get(key) for key in _GPU) for engine in engines if engine.get("gpu")]
    return [dict(zip(_GPU, gpu, strict=True)) for gpu in dict.fromkeys(found)]


def source_of(root: Path, variables: Mapping[str, str]) -> dict[str, str | None]:
    """Commit and branch of what is tested, and the address of the CI run, each None where nothing tells it.

    Args:
        root: a folder of a git repository, perhaps.
        variables: of the process.
    """
    for service, (sign, commit, branches) in _SERVICES.items():
        if variables.get(sign):
            branch = next((variables[name] for name in branches if variables.get(name)), None)
            told = {"service": service, "commit": variables.get(commit), "branch": branch}
            return {**told, "run": _address(service, variables)}
    return {"service": None, **_of_git(root), "run": None}


def _address(service: str, variables: Mapping[str, str]) -> str | None:
    if service == "github":
        parts = [variables.get(f"GITHUB_{name}") for name in ("SERVER_URL", "REPOSITORY", "RUN_ID")]
        return "{}/{}/actions/runs/{}".format(*parts) if all(parts) else None
    return variables.get("CI_JOB_URL" if service == "gitlab" else "BUILD_URL")


def _of_git(root: Path) -> dict[str, str | None]:
    """Commit and branch that are checked out; None each where there is no git, or no repository."""
    nothing: dict[str, str | None] = {"commit": None, "branch": None}
    if not any((folder / ".git").exists() for folder in (root, *root.parents)):
        return nothing
    command = ["git", "rev-parse", "HEAD", "--abbrev-ref", "HEAD"]
    try:
        done = subprocess.run(
            command, cwd=root, capture_output=True, encoding="utf-8", errors="replace", timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return nothing
    commit, branch = (*done.stdout.split("\n"), "", "")[:2]
    return {"commit": commit or None, "branch": None if branch in ("", "HEAD") else branch}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
