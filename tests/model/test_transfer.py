"""Copies to and from a device. No GPU here: streams are stand-ins that note who waits for whom."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from pipeline.model import transfer
from pipeline.model.transfer import Transfer


def test_on_a_cpu_numbers_are_copied_once_whatever_they_were() -> None:
    stored = np.arange(12, dtype=np.uint16).reshape(3, 4)
    stored.flags.writeable = False
    floats = Transfer(torch.device("cpu")).floats(stored[:, ::-2])
    assert floats.dtype == torch.float32
    assert floats.tolist() == [[3, 1], [7, 5], [11, 9]]
    floats += 1
    assert stored[0, 3] == 3


def test_on_a_cpu_what_was_computed_is_there() -> None:
    computed = [torch.ones(3), torch.zeros(2)]
    assert all(a is b for a, b in zip(Transfer(torch.device("cpu")).to_host(computed)(), computed, strict=True))


@dataclass(frozen=True)
class Stream:
    """Stands in for a CUDA stream."""

    name: str
    log: list[str]

    def wait_stream(self, other: "Stream") -> None:
        self.log.append(f"{self.name} waits for {other.name}")

    def record_event(self) -> "Stream":
        self.log.append(f"event on {self.name}")
        return self

    def synchronize(self) -> None:
        self.log.append(f"host waits for {self.name}")


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What happens, in order, on a device whose memory is the main memory."""
    log: list[str] = []
    names = iter(("up", "down"))
    current = [Stream("compute", log)]
    move, copy = torch.Tensor.to, torch.Tensor.copy_

    @contextlib.contextmanager
    def inside(stream: Stream) -> Iterator[None]:
        current.append(stream)
        yield
        current.pop()

    def to(tensor: torch.Tensor, device: torch.device, *, non_blocking: bool) -> torch.Tensor:
        log.append(f"upload on {current[-1].name}, {non_blocking=}")
        return move(tensor, "cpu", copy=True)

    def copy_(tensor: torch.Tensor, source: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
        log.append(f"download on {current[-1].name}, {non_blocking=}")
        return copy(tensor, source)

    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream(next(names), log))
    monkeypatch.setattr(torch.cuda, "stream", inside)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: current[-1])
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: log.append(f"kept for {stream.name}"))
    monkeypatch.setattr(torch.Tensor, "to", to)
    monkeypatch.setattr(torch.Tensor, "copy_", copy_)
    monkeypatch.setattr(transfer, "_pinned_like", torch.empty_like)
    return log


def test_uploads_go_beside_the_computation_that_waits_for_them(log: list[str]) -> None:
    assert Transfer(torch.device("cuda")).floats(np.array([1, 2], np.uint8)).tolist() == [1, 2]
    assert log == ["upload on up, non_blocking=True", "compute waits for up", "kept for compute"]


def test_downloads_wait_for_what_was_computed_before_and_the_host_for_the_downloads_alone(log: list[str]) -> None:
    arrive = Transfer(torch.device("cuda")).to_host([torch.ones(2)])
    assert log == ["down waits for compute", "download on down, non_blocking=True", "kept for down", "event on down"]
    assert [tensor.tolist() for tensor in arrive()] == [[1, 1]]
    assert log[4:] == ["host waits for down"]
