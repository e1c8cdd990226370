"""What a measurement was made on, and how it was timed."""

import platform
import subprocess
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import TypeVar

import torch

Facts = dict[str, object]
T = TypeVar("T")


def facts() -> Facts:
    """Machine, versions and commit: a figure without them is none."""
    return {
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "bf16": bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in ("torch", "numpy", "ray", "pyarrow")},
        "commit": _commit(),
    }


def timed(action: Callable[[], T], clock: Callable[[], float] = time.perf_counter) -> tuple[float, T]:
    """Seconds of one call by `clock`, and what it returns; on a GPU until the device has finished."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    begin = clock()
    result = action()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return clock() - begin, result


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    root = Path(__file__).resolve().parents[2]
    try:
        shown = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=root, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return shown.stdout.strip()
