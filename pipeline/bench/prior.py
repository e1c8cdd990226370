"""What one pass of an iteration costs on a CPU: the plain prior, the fused one, and the data step beside them.

The peak that the prior is held against is the machine's own: a large matrix product in the same precision.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from pipeline.bench.machine import timed
from pipeline.model.onednn import FusedPrior
from pipeline.model.usrnet import USRNet
from pipeline.physics.data_step import data_step, observe
from pipeline.physics.kernels import parse_kernel

SIDES = (256, 384, 512, 1024)  # HR pixels
BATCH = 16
_PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
_REPEATS = 7
_SCALE = 2

Row = dict[str, Any]


@torch.inference_mode()
def costs(net: USRNet, sides: tuple[int, ...] = SIDES) -> Iterator[Row]:
    """Milliseconds by side of a square HR image, and the fused prior's TFLOP/s; the threads are torch's."""
    fused = {name: FusedPrior(net.p, dtype) for name, dtype in _PRECISIONS.items()}
    for side in sides:
        z, beta = torch.rand(1, 3, side, side), torch.full((1, 1, 1, 1), 0.1)
        with FlopCounterMode(display=False) as counted:
            net.denoise(z, beta)
        seen = observe(z[..., ::_SCALE, ::_SCALE], _kernel(), _SCALE)
        row: Row = {"side": side, "plain_fp32_ms": _milliseconds(partial(net.denoise, z, beta))}
        for name, prior in fused.items():
            row[f"fused_{name}_ms"] = _milliseconds(partial(prior, z, beta))
            row[f"fused_{name}_tflops"] = counted.get_total_flops() / row[f"fused_{name}_ms"] / 1e9
        yield row | {"data_step_ms": _milliseconds(partial(data_step, z, seen, beta))}


@torch.inference_mode()
def batch_costs(net: USRNet, side: int = 256) -> Row:
    """How much longer a window takes in a batch of `BATCH` than alone, by precision."""
    found: Row = {"side": side, "batch": BATCH}
    for name, dtype in _PRECISIONS.items():
        prior = FusedPrior(net.p, dtype)
        alone, together = (
            _milliseconds(partial(prior, torch.rand(n, 3, side, side), torch.full((n, 1, 1, 1), 0.1)))
            for n in (1, BATCH)
        )
        found[f"{name}_ratio"] = together / BATCH / alone
    return found


def peaks(side: int = 2048) -> Row:
    """TFLOP/s of a matrix product (side, side) × (side, side), by precision."""
    found: Row = {}
    for name, dtype in _PRECISIONS.items():
        a, b = (torch.rand(side, side).to(dtype) for _ in range(2))
        found[f"{name}_tflops"] = 2 * side**3 / _milliseconds(partial(torch.mm, a, b)) / 1e9
    return found


def _milliseconds(action: Callable[[], object]) -> float:
    """The quickest of some calls, after one that lays weights out."""
    action()
    return 1000 * min(timed(action)[0] for _ in range(_REPEATS))


def _kernel() -> torch.Tensor:
    return torch.from_numpy(parse_kernel("gaussian(1.6)", _SCALE))[None, None].float()
