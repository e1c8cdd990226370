"""How much memory a restoration takes, and how much there is."""

import os
from pathlib import Path

import torch

from pipeline.model.backend import PRECISIONS
from pipeline.model.usrnet import Architecture

# Per HR pixel, measured as growth of the peak RSS (CPU, 0.3 to 4 MP): the data step holds about six
# images of three channels at once, the prior six feature maps of its widest scale.
_DATA_STEP_BYTES = 6 * 3 * 4
_FEATURE_MAPS = 6

_CPU_SHARE = 0.25  # readers, writers, the object store and other replicas live on the machine as well
_CPU_MOST = 2**30  # beyond, larger windows gain nothing
_GPU_SHARE = 0.7  # cuDNN's workspaces and the allocator's gaps need the rest


def bytes_per_pixel(architecture: Architecture, precision: str) -> int:
    """Peak bytes for each HR pixel that is restored at the same time."""
    return _DATA_STEP_BYTES + _FEATURE_MAPS * architecture.widths[0] * PRECISIONS[precision].itemsize


def memory_for_batches(device: torch.device) -> int:
    """Bytes that one batch may take on this device, from what is free now."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] * _GPU_SHARE)
    return min(_CPU_MOST, int(available_bytes() * _CPU_SHARE))


def available_bytes() -> int:
    """Main memory that can be used without swapping, within this container's limit."""
    free = _meminfo("MemAvailable") or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit, used = (_number(f"/sys/fs/cgroup/memory.{name}") for name in ("max", "current"))
    return min(free, max(0, limit - used)) if limit is not None and used is not None else free


def _meminfo(name: str) -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), None)


def _number(path: str) -> int | None:
    try:
        text = Path(path).read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
