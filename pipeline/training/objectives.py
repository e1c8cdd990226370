"""What is minimised: L1 for USRNet; L1, perceptual and adversarial loss for USRGAN.

    D(x, x')     = C(x) - mean C(x')                          C: the discriminator, logits
    adversarial  = (bce(D(hr, sr), 0) + bce(D(sr, hr), 1)) / 2   of the network
    discriminator = (bce(D(hr, sr), 1) + bce(D(sr, hr), 0)) / 2

The relativistic average GAN of Jolicoeur-Martineau, as the authors weigh it (USRNet, section 4;
KAIR, models/model_gan.py): 1 L1 + 1 perceptual + 0.005 adversarial. An objective gives the terms
that the network minimises, then learns itself.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Protocol

import torch
import torch.distributed
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils.parametrizations import spectral_norm

from pipeline.training.features import Features
from pipeline.training.recipe import Gan


class Objective(Protocol):
    def terms(self, sr: Tensor, hr: Tensor) -> dict[str, Tensor]:
        """Weighted scalars; the network minimises their sum. sr, hr: (N, 3, H, W)."""

    def learn(self, sr: Tensor, hr: Tensor, rate: float) -> dict[str, Tensor]:
        """Own step after the network's, its learning rate times `rate`; scalars to be logged."""

    def state(self) -> dict[str, Any]:
        """Everything a later `restore` needs to go on."""

    def restore(self, state: Mapping[str, Any]) -> None: ...


class Pixels:
    """L1."""

    def terms(self, sr: Tensor, hr: Tensor) -> dict[str, Tensor]:
        return {"l1": F.l1_loss(sr, hr)}

    def learn(self, sr: Tensor, hr: Tensor, rate: float) -> dict[str, Tensor]:
        return {}

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        pass


class Adversary:
    """L1, perceptual and relativistic adversarial loss, with a discriminator of its own."""

    def __init__(self, gan: Gan, features: Features, device: torch.device, seed: int, world: int = 1) -> None:
        self.gan, self.features = gan, features.to(device)
        torch.manual_seed(seed)
        self.discriminator = Discriminator(gan.width).to(device)
        self._parallel: nn.Module = self.discriminator
        if world > 1:
            self._parallel = DistributedDataParallel(self.discriminator, broadcast_buffers=False)
        self._world = world
        self.optimizer = torch.optim.Adam(self.discriminator.parameters(), lr=gan.learning_rate)

    def terms(self, sr: Tensor, hr: Tensor) -> dict[str, Tensor]:
        """The discriminator stands still meanwhile: its spectral norms too."""
        self.discriminator.eval().requires_grad_(False)
        with torch.no_grad():
            real, wanted = self.discriminator(hr), self.features(hr)
        fake = self.discriminator(sr)
        self.discriminator.train().requires_grad_(True)
        return {
            "l1": self.gan.pixel * F.l1_loss(sr, hr),
            "perceptual": self.gan.perceptual * F.l1_loss(self.features(sr), wanted),
            "adversarial": self.gan.adversarial * self._relativistic(fake, real),
        }

    def learn(self, sr: Tensor, hr: Tensor, rate: float) -> dict[str, Tensor]:
        for group in self.optimizer.param_groups:
            group["lr"] = self.gan.learning_rate * rate
        real, fake = self._parallel(torch.cat((hr, sr.detach()))).chunk(2)
        loss = self._relativistic(real, fake)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return {"discriminator": loss.detach()}

    def state(self) -> dict[str, Any]:
        return {"discriminator": self.discriminator.state_dict(), "optimizer": self.optimizer.state_dict()}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.discriminator.load_state_dict(state["discriminator"])
        self.optimizer.load_state_dict(state["optimizer"])

    def _relativistic(self, up: Tensor, down: Tensor) -> Tensor:
        """The loss of wanting the logits `up` above the mean of `down`, and `down` below that of `up`."""
        above = up - mean_of_all(down, self._world)
        below = down - mean_of_all(up, self._world)
        return (_bce(above, 1.0) + _bce(below, 0.0)) / 2


def mean_of_all(logits: Tensor, world: int) -> Tensor:
    """The mean over the batches of all workers, with its gradient."""
    mean = logits.mean()
    if world == 1:
        return mean
    from torch.distributed.nn.functional import all_reduce

    total: Tensor = all_reduce(mean)  # type: ignore[no-untyped-call]
    return total / world


def _bce(logits: Tensor, target: float) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))


class Discriminator(nn.Module):
    """(N, 3, H, W) in [0, 1], at least 32 pixels a side → (N,) logits of being real.

    Five levels of two convolutions like VGG, as KAIR's discriminator_vgg_96, but any size, and with
    spectral instead of batch normalisation: no sample's logit depends on the others in its batch, so
    sharing a batch among workers changes nothing.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        widths = [3, width, 2 * width, 4 * width, 8 * width, 8 * width]
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            layers += [spectral_norm(nn.Conv2d(inputs, outputs, 3, padding=1)), nn.LeakyReLU(0.2)]
            layers += [spectral_norm(nn.Conv2d(outputs, outputs, 4, stride=2, padding=1)), nn.LeakyReLU(0.2)]
        self.levels = nn.Sequential(*layers)
        self.judge = nn.Sequential(
            spectral_norm(nn.Linear(widths[-1], 100)), nn.LeakyReLU(0.2), spectral_norm(nn.Linear(100, 1))
        )

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.judge(self.levels(image * 2 - 1).mean(dim=(2, 3)))
        return logits.squeeze(1)
