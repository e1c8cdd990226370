"""What a training is made of, as plain values: everything here decides what is learned.

Knows no torch: a recipe travels as JSON to machines that have nothing else.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Degradations:
    """The degradations that are learned.

    scales: one is drawn for each batch. sigma_min, sigma_max: noise in grey levels of 0-255, drawn
    uniformly; noiseless: the share of pairs with sigma exactly 0. gray: the share of gray pairs with
    gray noise. own_kernels: the share of pairs blurred by one of the kernels given, if there are
    any; of the others half are motion kernels, half anisotropic Gaussians.
    """

    scales: tuple[int, ...] = (1, 2, 3, 4)
    sigma_min: float = 0.0
    sigma_max: float = 25.0
    noiseless: float = 0.125
    gray: float = 0.125
    own_kernels: float = 0.5


@dataclass(frozen=True)
class Gan:
    """Weights of the losses of USRGAN, and its discriminator's rate and width (first channels)."""

    pixel: float = 1.0
    perceptual: float = 1.0
    adversarial: float = 0.005
    learning_rate: float = 1e-5
    width: int = 64


@dataclass(frozen=True)
class Recipe:
    """How it is learned.

    batch: crops of one step, over all workers. schedule: after a linear warm-up, `cosine` down to 1%
    or `milestones`, halved at each of them. precision: "fp32", or "bf16" for the prior's convolutions
    (weights and FFTs stay fp32). compile: the prior by torch.compile. gan: None minimises L1.
    """

    steps: int
    batch: int = 16
    patch: int = 48
    learning_rate: float = 5e-4
    schedule: str = "cosine"
    milestones: tuple[int, ...] = ()
    warmup: int = 100
    ema: float = 0.998
    clip: float = 1.0
    precision: str = "fp32"
    compile: bool = False
    seed: int = 0
    degradations: Degradations = field(default_factory=Degradations)
    gan: Gan | None = None


def rate(step: int, recipe: Recipe) -> float:
    """Share of the learning rate at `step`, counted from 0."""
    if step < recipe.warmup:
        return (step + 1) / recipe.warmup
    if recipe.schedule == "milestones":
        return float(0.5 ** sum(step >= milestone for milestone in recipe.milestones))
    done = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def as_mapping(recipe: Recipe) -> dict[str, Any]:
    return asdict(recipe)


def from_mapping(values: Mapping[str, Any]) -> Recipe:
    """The recipe whose `as_mapping` is `values`, also after a journey as JSON."""
    inner = dict(values)
    degradations = dict(inner.pop("degradations"))
    gan = inner.pop("gan")
    return Recipe(
        **inner | {"milestones": tuple(inner["milestones"])},
        degradations=Degradations(**degradations | {"scales": tuple(degradations["scales"])}),
        gan=None if gan is None else Gan(**gan),
    )


def changes(before: Mapping[str, Any], after: Mapping[str, Any], above: str = "") -> list[str]:
    """`seed: 0 -> 7` for each value that differs between two mappings of recipes."""
    found = []
    for key, value in after.items():
        old = before.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            found += changes(old, value, f"{above}{key}.")
        elif old != value and list(_listed(old)) != list(_listed(value)):
            found.append(f"{above}{key}: {old} -> {value}")
    return found


def _listed(value: object) -> list[object]:
    return list(value) if isinstance(value, (list, tuple)) else [value]
