"""Copies between main memory and a device, beside the device's computation.

    upload     pinned → device on a stream of its own; the computation waits for it, the host does not
    compute    the current stream: whatever the caller launches
    download   device → pinned on a third stream, which waits for what was computed so far; who wants
               the numbers waits for an event, not for what was launched since

On a CPU nothing is copied, and nothing waits. Untried on a GPU: none was at hand.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


class Transfer:
    """The copies of one device. Call it from one thread, with the same current stream each time."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            self._up, self._down = (torch.cuda.Stream(device) for _ in range(2))  # type: ignore[no-untyped-call]

    def floats(self, numbers: npt.NDArray[Any]) -> Tensor:
        """The numbers as float32 on the device, in memory of their own; uploaded in their own type."""
        if self.device.type != "cuda":
            return torch.from_numpy(numbers.astype(np.float32))
        pinned = torch.from_numpy(np.array(numbers)).pin_memory()
        with torch.cuda.stream(self._up):
            uploaded = pinned.to(self.device, non_blocking=True)
        compute = torch.cuda.current_stream(self.device)
        compute.wait_stream(self._up)
        uploaded.record_stream(compute)  # or the upload's stream would use its memory again too early
        return uploaded.float()

    def to_host(self, computed: Sequence[Tensor]) -> Callable[[], list[Tensor]]:
        """Begin to copy; the call that comes back waits for the copies, which lie in main memory."""
        if self.device.type != "cuda":
            return lambda: list(computed)
        self._down.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._down):
            pinned = [_pinned_like(tensor).copy_(tensor, non_blocking=True) for tensor in computed]
        for tensor in computed:
            tensor.record_stream(self._down)
        arrived = self._down.record_event()

        def wait() -> list[Tensor]:
            arrived.synchronize()
            return [tensor.clone() for tensor in pinned]  # pinned memory is scarce, and results live on

        return wait


def _pinned_like(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
