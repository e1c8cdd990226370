"""The training loop: plain torch, resumable to the step, on one device or one worker of many.

Where several workers share the work, torch's process group is set up before, by whoever started
them (Ray Train, torchrun); each then sees its share of every batch, and gradients are averaged.

Knows no Ray and no storage; pairs come from a `Source`, states leave as bytes.
"""

import io
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from pipeline.errors import ConfigError
from pipeline.model.prior import initialize_as_identity
from pipeline.model.usrnet import Architecture, USRNet
from pipeline.training.features import features_of, random_features
from pipeline.training.objectives import Adversary, Objective, Pixels
from pipeline.training.pairs import ALONE, Crops, OwnKernels, Pairs, Photograph, Share, Source, degraded
from pipeline.training.recipe import Recipe, as_mapping, changes, rate

_VALIDATION_SEED = 2**31 - 1  # far from the seeds people choose, or it would draw the training's own crops


@dataclass(frozen=True)
class Progress:
    """What one line of progress shows.

    losses: means since the last line, `loss` (what is minimised) and its terms; empty before the
    first step. psnr_db: of the averaged weights on the validation pairs. seconds: since the start.
    """

    step: int
    steps: int
    losses: dict[str, float]
    psnr_db: float | None
    images_per_second: float
    seconds_per_step: float
    seconds: float
    learning_rate: float

    @property
    def loss(self) -> float:
        return self.losses.get("loss", math.nan)

    @property
    def seconds_left(self) -> float | None:
        """At the rate so far; None before the first step."""
        return (self.steps - self.step) * self.seconds_per_step if self.seconds_per_step else None


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
    """State of one training: weights, their moving average, optimiser, objective, step and history.

    There is no random state: every sample is drawn from the seed, the step and its number.
    perceptual: state dict of the GAN phase's perceptual network; None takes random filters.
    """

    def __init__(
        self,
        net: USRNet,
        recipe: Recipe,
        device: torch.device | str = "cpu",
        *,
        share: Share = ALONE,
        perceptual: dict[str, Tensor] | None = None,
    ) -> None:
        self.recipe, self.share = recipe, share
        self.device = torch.device(device)
        self.net = net.to(self.device, memory_format=torch.channels_last).train().requires_grad_(True)  # type: ignore[call-overload]
        self.average = {k: v.detach().clone() for k, v in net.state_dict().items()}
        self.optimizer = torch.optim.Adam(net.parameters(), lr=recipe.learning_rate, fused=self.device.type == "cuda")
        self.objective = _objective(recipe, self.device, share, perceptual)
        self.step = 0
        self.history: list[dict[str, float]] = []
        self._sums: dict[str, Tensor] = {}  # of the losses since the last line of progress
        self._summed = 0
        if recipe.compile:
            self.net.p.compile()
        self._parallel: nn.Module = self.net
        if share.world > 1:
            self._parallel = DistributedDataParallel(self.net, broadcast_buffers=False)

    def run(
        self,
        source: Source,
        validation: Sequence[Pairs] = (),
        *,
        every: int,
        loaders: int = 0,
        until: Callable[[], bool] | None = None,
    ) -> Iterator[Progress]:
        """Train to `recipe.steps`, or until `until()` is true on any worker; yields each `every` steps.

        loaders: processes that crop ahead. Raises `ConfigError` when the loss is no longer finite.
        """
        started, first = time.monotonic(), self.step
        if self.step == 0:
            yield self._progress(validation, 0, 0.0)
        for crops in _loader(source, self.step, loaders, self.device):
            self.update(degraded(crops, self.device))
            if self.step % every == 0 or self.step == self.recipe.steps:
                seconds = time.monotonic() - started
                yield self._progress(validation, self.step - first, seconds)
            if until is not None and self._agreed(until()):
                return

    def update(self, pairs: Pairs) -> None:
        """One step on this worker's share of a batch."""
        share = rate(self.step, self.recipe)
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.learning_rate * share
        losses, sr = self.gradients(pairs)
        nn.utils.clip_grad_norm_(self.net.parameters(), self.recipe.clip)
        self.optimizer.step()
        losses |= self.objective.learn(sr, pairs.hr, share)
        self.step += 1
        self._remember(losses)
        self._average()

    def gradients(self, pairs: Pairs) -> tuple[dict[str, Tensor], Tensor]:
        """Leave the gradients of this step in the network; returns losses and what was restored."""
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.precision == "bf16"):
            sr = self._parallel(pairs.lr, pairs.kernel, pairs.scale, pairs.sigma)
        terms = self.objective.terms(sr, pairs.hr)
        loss = torch.stack(list(terms.values())).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return {name: value.detach() for name, value in {"loss": loss, **terms}.items()}, sr.detach()

    def averaged(self) -> USRNet:
        """The network with the moving average of the weights: what is shipped."""
        net = USRNet(self.net.architecture)
        net.load_state_dict(self.average)
        return net.to(self.device).eval().requires_grad_(False)

    @torch.no_grad()
    def validate(self, validation: Sequence[Pairs]) -> float | None:
        """Mean PSNR (dB) of the averaged weights over `validation`; None when there is none."""
        if not validation:
            return None
        net = self.averaged()
        restored = [(net(p.lr, p.kernel, p.scale, p.sigma).clamp(0, 1), p.hr) for p in validation]
        return float(torch.cat([_psnr(sr, hr) for sr, hr in restored]).mean())

    def state(self) -> bytes:
        """Everything needed to go on exactly here, as `restore` takes it."""
        file = io.BytesIO()
        torch.save(
            {
                "net": self.net.state_dict(),
                "average": self.average,
                "optimizer": self.optimizer.state_dict(),
                "objective": self.objective.state(),
                "step": self.step,
                "history": self.history,
                "sums": self._sums,
                "summed": self._summed,
                "recipe": as_mapping(self.recipe),
            },
            file,
        )
        return file.getvalue()

    def restore(self, data: bytes) -> list[str]:
        """Go on where `state` left off: the same pairs, the same losses as without the break.

        Returns what differs between that recipe and this one, as lines. Raises `ConfigError` when
        the state is of another network or objective, RuntimeError and its kin when it is damaged.
        """
        state: dict[str, Any] = torch.load(io.BytesIO(data), map_location=self.device, weights_only=True)
        _refuse_other(state, self.net, self.recipe)
        self.net.load_state_dict(state["net"])
        self.average = state["average"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.objective.restore(state["objective"])
        self.step, self.history = state["step"], state["history"]
        self._sums, self._summed = state["sums"], state["summed"]
        return changes(state["recipe"], as_mapping(self.recipe))

    def is_finite(self) -> bool:
        """Whether every weight and every averaged weight is a number."""
        tensors = [*self.net.state_dict().values(), *self.average.values()]
        return all(bool(tensor.isfinite().all()) for tensor in tensors)

    def _progress(self, validation: Sequence[Pairs], done: int, seconds: float) -> Progress:
        losses = self._mean_losses()
        if not all(math.isfinite(loss) for loss in losses.values()):
            raise ConfigError(
                f"the loss is not finite at step {self.step}: {losses}; lower recipe.learning_rate and go on "
                "from the last state, or begin anew in another output"
            )
        psnr_db = self.validate(validation) if self.share.rank == 0 else None
        point = {"step": float(self.step), **losses, "learning_rate": self.optimizer.param_groups[0]["lr"]}
        self.history.append(point if psnr_db is None else {**point, "psnr_db": psnr_db})
        each = seconds / done if done else 0.0
        images = self.recipe.batch / each if each else 0.0
        return Progress(self.step, self.recipe.steps, losses, psnr_db, images, each, seconds, point["learning_rate"])

    def _remember(self, losses: dict[str, Tensor]) -> None:
        for name, value in losses.items():  # summed where they are: reading them would wait for the device
            self._sums[name] = self._sums.get(name, torch.zeros_like(value)) + value
        self._summed += 1

    def _mean_losses(self) -> dict[str, float]:
        if not self._summed:
            return {}
        means = torch.stack(list(self._sums.values())) / self._summed
        if self.share.world > 1:
            torch.distributed.all_reduce(means)
            means /= self.share.world
        names = list(self._sums)
        self._sums, self._summed = {}, 0
        return dict(zip(names, means.tolist(), strict=True))

    def _agreed(self, stop: bool) -> bool:
        if self.share.world == 1:
            return stop
        wishes = torch.tensor(float(stop), device=self.device)
        torch.distributed.all_reduce(wishes)
        return bool(wishes > 0)

    @torch.no_grad()
    def _average(self) -> None:
        keep = min(self.recipe.ema, self.step / (self.step + 10))
        now = self.net.state_dict()
        torch._foreach_lerp_([self.average[key] for key in now], list(now.values()), 1 - keep)


def validation_pairs(
    photographs: Sequence[Photograph],
    recipe: Recipe,
    kernels: OwnKernels | None = None,
    *,
    batch: int = 8,
    device: torch.device | str = "cpu",
) -> list[Pairs]:
    """A fixed batch of pairs for each scale, from photographs that are never trained on."""
    if not photographs:
        return []
    fixed = Recipe(1, batch=batch, patch=recipe.patch, degradations=recipe.degradations, seed=_VALIDATION_SEED)
    source = Source(photographs, fixed, kernels)
    return [degraded(source.crops(scale, scale), device) for scale in recipe.degradations.scales]


def _objective(recipe: Recipe, device: torch.device, share: Share, perceptual: dict[str, Tensor] | None) -> Objective:
    if recipe.gan is None:
        return Pixels()
    features = features_of(perceptual or random_features(recipe.seed))
    return Adversary(recipe.gan, features, device, recipe.seed, share.world)


def _loader(source: Source, first: int, processes: int, device: torch.device) -> DataLoader[Crops]:
    steps: Any = range(first, len(source))
    return DataLoader(source, batch_size=None, sampler=steps, num_workers=processes, pin_memory=device.type == "cuda")


def _refuse_other(state: dict[str, Any], net: USRNet, recipe: Recipe) -> None:
    shapes = {key: tensor.shape for key, tensor in state["net"].items()}
    if shapes != {key: tensor.shape for key, tensor in net.state_dict().items()}:
        raise ConfigError("the output holds a training of another network; choose another output, or its weights")
    if (state["recipe"]["gan"] is None) != (recipe.gan is None):
        kind = "an L1 training" if recipe.gan else "a GAN phase"
        raise ConfigError(f"the output holds {kind}; choose another output for this one, or the same recipe.loss")
    if recipe.gan and state["recipe"]["gan"]["width"] != recipe.gan.width:
        raise ConfigError("the output holds a GAN phase of another gan.width; choose another output, or that width")


def _psnr(sr: Tensor, hr: Tensor) -> Tensor:
    return -10 * torch.log10(((sr - hr) ** 2).flatten(1).mean(1))
