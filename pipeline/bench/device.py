"""The engine on one device, mostly a GPU: speed by network, precision, compilation and batch, exactness, memory.

    python -m jobs.benchmark device --out device.json

Needs torch and numpy only, and one call. The full-size network has random weights, which serve for
speed; exactness is the packaged network's. Every speed stands beside the baseline's
(pipeline.bench.baseline) on the same device in the same run.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pipeline.bench.baseline import restored_plainly
from pipeline.bench.machine import timed
from pipeline.bench.pictures import Gradient
from pipeline.errors import ItemError
from pipeline.measure.metrics import psnr
from pipeline.model.checkpoint import load_usrnet
from pipeline.model.restore import Restored, Restorer
from pipeline.model.usrnet import Architecture, USRNet
from pipeline.physics.kernels import parse_kernel
from pipeline.records import Degradation

SCALE = 4
PRECISIONS = ("fp32", "tf32", "bf16", "fp16")
_REPEATS = 5  # on a GPU
_WARM_UPS = 40  # batches of one shape after which `auto` must have compiled, or never will (pipeline.model.backend)
_PROFILED = 12  # operators that a profile names

Row = dict[str, Any]


def networks() -> dict[str, USRNet]:
    """tiny: the packaged weights. full: the size of the authors' USRNet, random weights."""
    torch.manual_seed(0)
    return {"tiny": load_usrnet(), "full": USRNet(Architecture())}


def speeds(device: torch.device, side: int, batches: Sequence[int], compiled: Sequence[str]) -> Iterator[Row]:
    """HR MP/s of images of side × side LR pixels at x4. compiled: precisions to measure compiled as well."""
    for name, net in networks().items():
        baseline = _baseline_speed(net, device, side, tf32=False)
        for precision, speed in (("fp32", baseline), ("tf32", _baseline_speed(net, device, side, tf32=True))):
            yield {"network": name, "precision": precision, "code": "baseline", "batch": 1, "hr_mp_per_s": speed}
        for precision in PRECISIONS:
            for compile in ("off", "auto", "on") if precision in compiled else ("off",):
                for batch in batches:
                    yield _speed(net, name, device, precision, compile, batch, side) | {"baseline": baseline}


def _speed(net: USRNet, name: str, device: torch.device, precision: str, compile: str, batch: int, side: int) -> Row:
    """One cell. code: what was asked for; backend: what ran. first_seconds: of the calls before it was timed,
    with what is done once, compilation above all."""
    restorer = Restorer(net, precision="fp32" if precision == "tf32" else precision, compile=compile, device=device)
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    images, degradations = [_picture(side)] * batch, [_degradation()] * batch
    found: Row = {"network": name, "precision": precision, "code": compile, "batch": batch}
    try:
        first, results = timed(lambda: _warmed_up(restorer, images, degradations, compile))
        if failed := [result for result in results if not isinstance(result, Restored)]:
            return found | {"error": str(failed[0])}
        seconds = min(timed(lambda: restorer.batch(images, degradations))[0] for _ in range(_repeats(device)))
    except RuntimeError as error:  # a precision that the device or its libraries lack
        return found | {"error": str(error).splitlines()[0]}
    hr_megapixels = batch * (side * SCALE) ** 2 / 1e6
    return found | {"backend": restorer.backend, "hr_mp_per_s": hr_megapixels / seconds, "first_seconds": first}


def _warmed_up(
    restorer: Restorer, images: list[npt.NDArray[np.uint8]], degradations: list[Degradation], compile: str
) -> list[Restored | ItemError]:
    """The batch once; where the code may change after some batches, until it has."""
    results = restorer.batch(images, degradations)
    waits = compile == "auto" and restorer.device.type == "cuda"
    for _ in range(_WARM_UPS if waits else 0):
        if restorer.backend == "compiled":
            break
        results = restorer.batch(images, degradations)
    return results


def _baseline_speed(net: USRNet, device: torch.device, side: int, *, tf32: bool) -> float:
    torch.backends.cudnn.allow_tf32 = tf32  # torch's own default is True
    seconds = min(
        timed(lambda: restored_plainly(net, _picture(side), _degradation(), device))[0] for _ in range(_repeats(device))
    )
    return (side * SCALE) ** 2 / 1e6 / seconds


@torch.inference_mode()
def exactness(device: torch.device, side: int) -> Row:
    """PSNR (dB) of each precision's 8-bit result against float64 on the CPU; rounding alone gives 58.9 dB."""
    net, degradation, picture = load_usrnet(), _degradation(), _picture(side)
    lr = torch.from_numpy(picture).permute(2, 0, 1)[None].double() / 255
    kernel, sigma = torch.from_numpy(degradation.kernel)[None, None], torch.tensor([degradation.sigma / 255]).double()
    truth = net.double()(lr, kernel, SCALE, sigma)[0].permute(1, 2, 0).clamp(0, 1).numpy() * 255
    found: Row = {}
    for precision in ("fp32", "bf16", "fp16"):
        (result,) = Restorer(load_usrnet(), precision=precision, device=device).batch(
            [picture], [degradation], "circular"
        )
        found[precision] = psnr(truth, result.image) if isinstance(result, Restored) else str(result)
    return found


def gpu_memory(device: torch.device, megapixels: Sequence[float]) -> Iterator[Row]:
    """Peak bytes for each HR pixel that one window of so many takes; nothing on a CPU (see `memory`)."""
    for name, net in networks().items() if device.type == "cuda" else ():
        for hr_megapixels in megapixels:
            side = round((hr_megapixels * 1e6) ** 0.5 / SCALE / 8) * 8
            restorer = Restorer(net, device=device, compile="off")
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            (result,) = restorer.batch([_picture(side)], [_degradation()])
            tiles = result.tiles if isinstance(result, Restored) else str(result)
            each = (torch.cuda.max_memory_allocated() - before) / (side * SCALE) ** 2
            yield {"network": name, "hr_megapixels": hr_megapixels, "tiles": tiles, "bytes_per_hr_pixel": each}


def profile(device: torch.device, side: int, batch: int) -> Iterator[Row]:
    """Where the time of a bf16 batch goes: the operators that take longest on the device, with their share."""
    kinds = [torch.profiler.ProfilerActivity.CPU]
    kinds += [torch.profiler.ProfilerActivity.CUDA] if device.type == "cuda" else []
    images, degradations = [_picture(side)] * batch, [_degradation()] * batch
    for name, net in networks().items():
        restorer = Restorer(net, precision="bf16", device=device)
        restorer.batch(images, degradations)
        with torch.profiler.profile(activities=kinds) as seen:
            restorer.batch(images, degradations)
        cost = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
        operators = sorted(seen.key_averages(), key=lambda operator: -getattr(operator, cost))
        total = sum(getattr(operator, cost) for operator in operators) or 1
        for operator in operators[:_PROFILED]:
            yield {"network": name, "operator": operator.key, "share": getattr(operator, cost) / total}


def _repeats(device: torch.device) -> int:
    return _REPEATS if device.type == "cuda" else 1


def _picture(side: int) -> npt.NDArray[np.uint8]:
    return Gradient(side, side).read(0, side, 0, side)


def _degradation() -> Degradation:
    return Degradation(parse_kernel("gaussian(2.0, 0.8, 30)", SCALE), SCALE, 2.55)
