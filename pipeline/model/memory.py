"""How much memory a restoration takes, and how much there is."""

import os
from pathlib import Path

import torch

from pipeline.model.usrnet import Architecture

# Per HR pixel, measured as growth of the peak RSS (CPU, 0.3 to 4 MP): the data step holds about six
# images of three channels at once, the prior six feature maps of its widest scale.
_DATA_STEP_BYTES = 6 * 3 * 4
_FEATURE_MAPS = 6

_CPU_SHARE = 0.25  # readers, writers, the object store and other replicas live on the machine as well
_CPU_MOST = 2**30  # beyond, larger windows gain nothing
_GPU_SHARE = 0.7  # cuDNN's workspaces and the allocator's gaps need the rest

# Where a container's limit stands, what it uses of it, and how its statistics call the page cache that nobody
# has asked for lately: it counts as used, but goes before anything is refused (kubelet reckons so too).
_CGROUPS = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
)
_RAN_OUT = ("can't allocate memory", "out of memory", "ALLOC_FAILED", "bad_alloc")


def bytes_per_pixel(architecture: Architecture, dtype: torch.dtype) -> int:
    """Peak bytes for each HR pixel that is restored at the same time. dtype: of the prior's numbers."""
    return _DATA_STEP_BYTES + _FEATURE_MAPS * architecture.widths[0] * dtype.itemsize


def memory_for_batches(device: torch.device) -> int:
    """Bytes that one batch may take on this device, from what is free now."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] * _GPU_SHARE)
    return min(_CPU_MOST, int(available_bytes() * _CPU_SHARE))


def available_bytes(cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Main memory that can be used without swapping, within this container's limit."""
    free = _statistic(Path("/proc/meminfo"), "MemAvailable:") or _all_memory()
    rooms = (_room(*(cgroups / name for name in names[:3]), cache=names[3]) for names in _CGROUPS)
    return min([free, *(room for room in rooms if room is not None)])


def ran_out_of_memory(error: BaseException) -> bool:
    """torch tells most of it as a plain RuntimeError: the CPU's allocator, pinned memory, cuFFT, cuDNN, a compiler."""
    is_told = isinstance(error, RuntimeError) and any(words in str(error) for words in _RAN_OUT)
    return is_told or isinstance(error, (MemoryError, torch.OutOfMemoryError))


def _room(limit: Path, used: Path, statistics: Path, *, cache: str) -> int | None:
    """Bytes below a container's limit; None where there is none."""
    most, now = _number(limit), _number(used)
    if most is None or now is None:
        return None
    return max(0, most - max(0, now - (_statistic(statistics, cache) or 0)))


def _all_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _statistic(path: Path, name: str) -> int | None:
    """The value of the line `name value [kB]`, in bytes."""
    lines = (line.split() for line in _text(path).splitlines())
    return next((int(words[1]) * (1024 if words[2:] == ["kB"] else 1) for words in lines if words[:1] == [name]), None)


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
