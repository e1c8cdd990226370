"""What a training needs from outside, gathered and checked before anything starts. Knows no Ray."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from pipeline import uris
from pipeline.config.train import TrainConfig
from pipeline.data import photographs as stored
from pipeline.data.kernels import load_kernel
from pipeline.errors import ConfigError, ItemError
from pipeline.model.checkpoint import load_tensors, load_usrnet
from pipeline.model.usrnet import TINY, USRNet
from pipeline.physics.kernels import Kernel
from pipeline.training.features import features_of
from pipeline.training.loop import initial_usrnet
from pipeline.training.pairs import Photograph, Source
from pipeline.training.recipe import Degradations, Gan, Recipe

Notice = Callable[[str], None]
_RANDOM = "random filters made here: they show that the phase runs; give VGG weights in gan.features to judge by it"


@dataclass(frozen=True)
class Material:
    """Photographs to train on and to validate with, kernels by scale, the network to start from.

    perceptual: state dict of the perceptual network; None when there is no GAN phase or no weights.
    held_out: names of the photographs to validate with, below the folder.
    """

    photographs: Sequence[Photograph]
    validation: Sequence[Photograph]
    kernels: dict[int, list[Kernel]]
    start: USRNet
    perceptual: dict[str, torch.Tensor] | None
    held_out: tuple[str, ...] = ()


def gather(config: TrainConfig, recipe: Recipe, notice: Notice, held_out: Sequence[str] | None = None) -> Material:
    """Everything that `config` names, loaded. Raises `ConfigError` and `WeightsError`.

    held_out: names of the photographs to hold out, as a training under way did; None chooses.
    """
    start = _start(config, recipe)
    perceptual = _perceptual(config, notice)
    kernels = {scale: _kernels(config, scale) for scale in recipe.degradations.scales}
    held, rest = _parted(config, held_out)
    validation, photographs = _loaded(config, recipe, notice, held, rest)
    try:
        Source(photographs, recipe, kernels)
    except ValueError as error:
        raise ConfigError(f"{config.photographs}: {error}") from None
    notice(f"{len(photographs)} photographs to train on, {len(validation)} held out")
    return Material(photographs, validation, kernels, start, perceptual, tuple(_name(config, uri) for uri in held))


def recipe_of(config: TrainConfig) -> Recipe:
    """The configuration's sections as what the loop knows."""
    known = config.degradation
    degradations = Degradations(
        scales=tuple(known.scales),
        sigma_min=known.sigma_min,
        sigma_max=known.sigma_max,
        noiseless=known.noiseless,
        gray=known.gray,
        own_kernels=known.own_kernels,
    )
    values = config.recipe.model_dump(exclude={"loss", "milestones"})
    gan = Gan(**config.gan.model_dump(exclude={"features"})) if config.recipe.loss == "gan" else None
    return Recipe(**values, milestones=tuple(config.recipe.milestones), degradations=degradations, gan=gan)


def _start(config: TrainConfig, recipe: Recipe) -> USRNet:
    if config.weights is None:
        return initial_usrnet(TINY, recipe.seed)
    return load_usrnet(None if config.weights == "packaged" else config.weights)


def _perceptual(config: TrainConfig, notice: Notice) -> dict[str, torch.Tensor] | None:
    if config.recipe.loss != "gan":
        return None
    if config.gan.features is None:
        notice(f"the perceptual network has {_RANDOM}")
        return None
    state = load_tensors(config.gan.features)
    features_of(state, config.gan.features)
    return {key: tensor for key, tensor in state.items() if not key.startswith("classifier.")}


def _kernels(config: TrainConfig, scale: int) -> list[Kernel]:
    known = config.degradation
    try:
        return [load_kernel(spec, scale, known.phase, max_width=config.recipe.patch) for spec in known.kernels]
    except ItemError as error:
        raise ConfigError(f"degradation.kernels: {error}") from None


def _parted(config: TrainConfig, held_out: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """URIs to hold out, the first by the digests of their names where nobody chose before, and the rest."""
    try:
        found = stored.in_random_order(config.photographs)
    except ItemError as error:
        raise ConfigError(f"photographs: {error}") from None
    if not found:
        raise ConfigError(f"photographs: there is no image below {config.photographs}; name a folder of clean images")
    if held_out is None:
        count = min(config.validation, len(found) // 5)
        return found[:count], found[count:]
    known = set(held_out)
    held = [uri for uri in found if _name(config, uri) in known]
    return held, [uri for uri in found if _name(config, uri) not in known]


def _name(config: TrainConfig, uri: str) -> str:
    return uri.removeprefix(uris.absolute(config.photographs)).lstrip("/")


def _loaded(
    config: TrainConfig, recipe: Recipe, notice: Notice, held: Sequence[str], rest: Sequence[str]
) -> tuple[list[Photograph], list[Photograph]]:
    """Held out and trained on."""

    def load(found: Sequence[str]) -> list[Photograph]:
        return stored.load_up_to(found, config.megapixels, smallest=recipe.patch, notice=notice)

    photographs = load(rest)
    if not photographs:
        count = len(held) + len(rest)
        raise ConfigError(f"photographs: none of the {count} images below {config.photographs} can be used")
    return load(held), photographs
