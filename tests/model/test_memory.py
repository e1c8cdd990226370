"""How much memory there is: a container's page cache is free, its limit is not."""

from pathlib import Path

import pytest
import torch

from pipeline.model.memory import available_bytes, ran_out_of_memory


def container(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("limit", "used", "statistics", "cache"),
    [
        ("memory.max", "memory.current", "memory.stat", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
    ],
)
def test_page_cache_that_can_go_is_free_memory(
    tmp_path: Path, limit: str, used: str, statistics: str, cache: str
) -> None:
    """Both generations of cgroups; the limit is small, so that this machine always has more."""
    cached = f"anon 1000000\nactive_file 4096\n{cache} {9 * 2**20}\n"
    files = {limit: f"{16 * 2**20}\n", used: f"{12 * 2**20}\n", statistics: cached}
    assert available_bytes(container(tmp_path, files)) == 13 * 2**20


def test_a_full_container_has_nothing_left_and_one_without_statistics_no_cache(tmp_path: Path) -> None:
    files = {"memory.max": str(16 * 2**20), "memory.current": str(12 * 2**20)}
    assert available_bytes(container(tmp_path, files)) == 4 * 2**20
    files["memory.current"] = str(17 * 2**20)
    assert available_bytes(container(tmp_path, files)) == 0


@pytest.mark.parametrize("files", [{}, {"memory.max": "max\n", "memory.current": "12345\n"}])
def test_without_a_limit_the_machines_memory_counts(tmp_path: Path, files: dict[str, str]) -> None:
    assert available_bytes(container(tmp_path, files)) > 2**25


def test_every_way_to_say_that_memory_ran_out_is_understood() -> None:
    told = (
        "[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 8",
        "cuFFT error: CUFFT_ALLOC_FAILED",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "CUDA error: out of memory",
        "std::bad_alloc",
    )
    assert all(ran_out_of_memory(RuntimeError(words)) for words in told)
    assert ran_out_of_memory(torch.OutOfMemoryError())
    assert ran_out_of_memory(MemoryError())
    assert not ran_out_of_memory(RuntimeError("shapes differ"))
    assert not ran_out_of_memory(ValueError("out of memory"))
