"""The training loop: plain torch, resumable to the step, on one device.

Knows no Ray and no storage; photographs come as arrays, checkpoints go to a local file.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.model.prior import initialize_as_identity
from pipeline.model.usrnet import Architecture, USRNet
from pipeline.training.pairs import SCALES, Pairs, Photograph, draw_pairs


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what is learned. Learning rate: linear warm-up, then a cosine to 1%.

    precision: "fp32", or "bf16" for the prior's convolutions (weights and FFTs stay fp32).
    """

    steps: int
    batch: int = 16
    patch: int = 48
    learning_rate: float = 5e-4
    warmup: int = 100
    ema: float = 0.998
    clip: float = 1.0
    precision: str = "fp32"
    seed: int = 0


@dataclass(frozen=True)
class Progress:
    """What one line of progress shows. loss is the mean since the last line, seconds since the start."""

    step: int
    loss: float
    psnr_db: float | None
    images_per_second: float
    seconds: float


def initial_usrnet(architecture: Architecture, seed: int) -> USRNet:
    """An untrained USRNet that already is a half-quadratic-splitting solver.

    P is the identity and α = softplus(b + 40 σ): 0.01 without noise, about 0.4 at σ = 25/255.
    """
    torch.manual_seed(seed)
    net = USRNet(architecture)
    initialize_as_identity(net.p)
    first, second, last = (layer for layer in net.h.mlp if isinstance(layer, nn.Conv2d))
    n = architecture.iterations
    with torch.no_grad():
        for layer in (first, second):  # unit 0 carries σ through both hidden layers
            layer.weight[0] = 0
            layer.weight[0, 0] = 1
            layer.bias[0] = 0  # type: ignore[index]
        last.weight *= 0.1
        last.weight[:n, 0] = 40
        last.bias[:n] = math.log(math.expm1(0.01))  # type: ignore[index]
        last.bias[n:] = math.log(math.expm1(0.1))  # type: ignore[index]
    return net


class Training:
    """State of one training: weights, their moving average, optimiser, step and random state."""

    def __init__(self, net: USRNet, recipe: Recipe, device: torch.device | str = "cpu") -> None:
        self.recipe = recipe
        self.device = torch.device(device)
        self.net = net.to(self.device, memory_format=torch.channels_last).train().requires_grad_(True)  # type: ignore[call-overload]
        self.average = {k: v.detach().clone() for k, v in net.state_dict().items()}
        self.optimizer = torch.optim.Adam(net.parameters(), lr=recipe.learning_rate)
        self.rng = np.random.default_rng(recipe.seed)
        self.step = 0

    def run(
        self,
        photographs: Sequence[Photograph],
        validation: Sequence[Pairs],
        *,
        every: int,
        checkpoint: Path | None = None,
        until: Callable[[], bool] = lambda: False,
    ) -> Iterator[Progress]:
        """Train to `recipe.steps`, or until `until()`; yields and saves the state each `every` steps."""
        started, losses = time.monotonic(), []
        first = self.step
        while self.step < self.recipe.steps and not until():
            pairs = draw_pairs(
                photographs, self.rng, batch=self.recipe.batch, patch=self.recipe.patch, device=self.device
            )
            losses.append(self._update(pairs))
            if self.step % every and self.step < self.recipe.steps:
                continue
            if checkpoint is not None:
                self.save(checkpoint)
            seconds = time.monotonic() - started
            rate = (self.step - first) * self.recipe.batch / seconds
            yield Progress(self.step, float(np.mean(losses)), self.validate(validation), rate, seconds)
            losses = []

    def averaged(self) -> USRNet:
        """The network with the moving average of the weights: what is shipped."""
        net = USRNet(self.net.architecture)
        net.load_state_dict(self.average)
        return net.to(self.device).eval().requires_grad_(False)

    def validate(self, validation: Sequence[Pairs]) -> float | None:
        """Mean PSNR (dB) of the averaged weights over `validation`; None when there is none."""
        if not validation:
            return None
        net = self.averaged()
        with torch.no_grad():
            restored = [(net(p.lr, p.kernel, p.scale, p.sigma).clamp(0, 1), p.hr) for p in validation]
        return float(torch.cat([_psnr(sr, hr) for sr, hr in restored]).mean())

    def save(self, path: Path) -> None:
        """Write the whole state to `path`, atomically."""
        state = {
            "net": self.net.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "rng": self.rng.bit_generator.state,
            "step": self.step,
        }
        partial = path.with_suffix(".part")
        torch.save(state, partial)
        partial.replace(path)

    def restore(self, path: Path) -> None:
        """Go on where `save` left off: the same pairs, the same losses as without the break."""
        state: dict[str, Any] = torch.load(path, map_location=self.device, weights_only=True)
        self.net.load_state_dict(state["net"])
        self.average = state["average"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.rng.bit_generator.state = state["rng"]
        self.step = state["step"]

    def _update(self, pairs: Pairs) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.learning_rate * _schedule(self.step, self.recipe)
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.precision == "bf16"):
            sr = self.net(pairs.lr, pairs.kernel, pairs.scale, pairs.sigma)
        loss = F.l1_loss(sr, pairs.hr)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.net.parameters(), self.recipe.clip)
        self.optimizer.step()
        self.step += 1
        self._average()
        return loss.item()

    @torch.no_grad()
    def _average(self) -> None:
        keep = min(self.recipe.ema, self.step / (self.step + 10))
        for key, value in self.net.state_dict().items():
            self.average[key].lerp_(value, 1 - keep)


def validation_pairs(
    photographs: Sequence[Photograph], seed: int = 1, *, batch: int = 8, patch: int = 96
) -> list[Pairs]:
    """A fixed batch of pairs for each scale, from photographs that are never trained on."""
    rng = np.random.default_rng(seed)
    return [draw_pairs(photographs, rng, batch=batch, patch=patch, scale=scale) for scale in SCALES]


def _schedule(step: int, recipe: Recipe) -> float:
    if step < recipe.warmup:
        return (step + 1) / recipe.warmup
    done = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def _psnr(sr: Tensor, hr: Tensor) -> Tensor:
    return -10 * torch.log10(((sr - hr) ** 2).flatten(1).mean(1))
