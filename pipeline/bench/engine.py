"""The engine against the baseline: images a second and PSNR, on the same pictures in the same run.

Baseline and engine take turns on each set of pictures, and what is reported is the median of the
ratios of neighbouring turns: other work on the machine then hurts both alike. Both decode every LR
image from PNG and encode every result to PNG (level 1, as OpenCV writes by default), where Pillow
is at hand; without it, neither does. Needs torch and numpy only.
"""

import io
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pipeline.bench.baseline import restored_plainly
from pipeline.bench.machine import timed
from pipeline.measure.metrics import psnr
from pipeline.model.restore import Restored, Restorer
from pipeline.model.usrnet import USRNet
from pipeline.physics.degradation import degrade
from pipeline.records import Degradation

try:
    from PIL import Image
except ImportError:  # a bare machine
    Image = None  # type: ignore[assignment]

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Case:
    """One picture to restore: its encoded LR image (PNG, or raw without Pillow), how it was degraded, the truth."""

    group: str
    lr: bytes
    degradation: Degradation
    hr: Pixels


@dataclass(frozen=True)
class Turn:
    """Baseline and engine once each on one group of cases. number: which of the turns, from 0."""

    group: str
    precision: str
    number: int
    images: int
    hr_megapixels: float
    baseline_seconds: float
    engine_seconds: float
    db_loss: float

    @property
    def ratio(self) -> float:
        return self.baseline_seconds / self.engine_seconds


def cases(
    pictures: Sequence[Pixels], kernels: Sequence[npt.NDArray[np.float64]], scales: Sequence[int], group: str
) -> Iterator[Case]:
    """Every picture under every kernel and scale, degraded without noise and with wrap-around, as in Table 1."""
    for scale in scales:
        for kernel in kernels:
            for hr in pictures:
                degradation = Degradation(kernel, scale, 0.0)
                lcm = int(np.lcm(scale, 8))
                hr = hr[: hr.shape[0] // lcm * lcm, : hr.shape[1] // lcm * lcm]
                lr = degrade(hr / 255, kernel, scale, 0.0)
                lr_8bit = np.rint(lr.clip(0, 1) * 255).astype(np.uint8)
                yield Case(group, _encode(lr_8bit), degradation, hr)


def compare(
    net: USRNet, cases: Sequence[Case], precision: str, compile: str = "auto", turns: int = 3
) -> Iterator[Turn]:
    """Baseline and engine on the cases, taking turns. The cases are one group's."""
    restorer = Restorer(net, precision=precision, compile=compile)
    _restored(restorer, cases[:2])  # what is done once in a process's life is not measured
    _plainly(net, cases[0], restorer.device)
    for number in range(turns):
        slow, theirs = timed(lambda: [_plainly(net, case, restorer.device) for case in cases])
        fast, ours = timed(lambda: _restored(restorer, cases))
        losses = [psnr(case.hr, a) - psnr(case.hr, b) for case, a, b in zip(cases, theirs, ours, strict=True)]
        megapixels = sum(case.hr[:, :, 0].size for case in cases) / 1e6
        yield Turn(cases[0].group, precision, number, len(cases), megapixels, slow, fast, max(losses))


def summary(turns: Sequence[Turn]) -> dict[str, Any]:
    """By precision: the ratio of images a second on all groups together and on each (medians over
    turns), and the largest loss of any case, in dB."""
    found: dict[str, Any] = {}
    for precision in dict.fromkeys(turn.precision for turn in turns):
        chosen = [turn for turn in turns if turn.precision == precision]
        found[f"ratio_{precision}"] = _ratio(chosen)
        for group in dict.fromkeys(turn.group for turn in chosen):
            found[f"ratio_{precision}, {group}"] = _ratio([turn for turn in chosen if turn.group == group])
        found[f"max_db_loss_{precision}"] = round(max(turn.db_loss for turn in chosen), 4)
    return found


def _ratio(turns: Sequence[Turn]) -> float:
    """Of the seconds for the same images, all groups of a turn taken together; the median over turns."""
    baseline: dict[int, float] = defaultdict(float)
    engine: dict[int, float] = defaultdict(float)
    for turn in turns:
        baseline[turn.number] += turn.baseline_seconds
        engine[turn.number] += turn.engine_seconds
    return round(median(baseline[number] / engine[number] for number in baseline), 3)


def _plainly(net: USRNet, case: Case, device: torch.device) -> Pixels:
    """The authors' way: one picture from its file to its file."""
    image = restored_plainly(net, _decode(case.lr), case.degradation, device)
    _encode(image)
    return image


def _restored(restorer: Restorer, cases: Sequence[Case]) -> list[Pixels]:
    """The engine's way: units of some pictures each, as a replica gets them."""
    found: list[Pixels] = []
    waiting = iter(cases)
    while unit := list(islice(waiting, 16)):
        images = [_decode(case.lr) for case in unit]
        for result in restorer.batch(images, [case.degradation for case in unit], "circular"):
            if not isinstance(result, Restored):
                raise result
            _encode(result.image)  # type: ignore[arg-type]
            found.append(result.image)  # type: ignore[arg-type]
    return found


def _decode(data: bytes) -> Pixels:
    if Image is not None:
        return np.array(Image.open(io.BytesIO(data)))
    pixels: Pixels = np.load(io.BytesIO(data))
    return pixels


def _encode(image: Pixels) -> bytes:
    buffer = io.BytesIO()
    if Image is not None:
        Image.fromarray(image).save(buffer, "PNG", compress_level=1)
    else:
        np.save(buffer, image)
    return buffer.getvalue()
