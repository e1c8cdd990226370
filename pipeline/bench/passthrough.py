"""Engines that restore nothing: what is left when the network costs nothing."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.model.restore import Restored
from pipeline.model.usrnet import TINY, Denoise, USRNet
from pipeline.physics.data_step import Observation, data_step
from pipeline.records import Degradation

_ALPHA = 1e6  # at which a data step changes nothing that fp32 could show, and costs what every one costs


class _PassThrough(USRNet):
    """A USRNet of one data step and no prior, whose result is its input, enlarged."""

    def unfold(
        self,
        lr: Tensor,
        seen: Observation,
        sigma: Tensor,
        denoise: Denoise | None = None,
        last: Denoise | None = None,
    ) -> Tensor:
        x = F.interpolate(lr, scale_factor=seen.scale, mode="nearest")
        return data_step(x, seen, torch.full_like(sigma, _ALPHA))


def pass_through() -> USRNet:
    """A network to hand to a `Restorer`."""
    return _PassThrough(TINY)


class PassThroughRestorer:
    """Stands in for a `Restorer` where only what is around it shall cost: repeats pixels."""

    backend = "none"

    def batch(
        self, images: Sequence[npt.NDArray[Any]], degradations: Sequence[Degradation], boundary: str = "smooth"
    ) -> list[Restored]:
        return [
            Restored(0.0, "fp32", self.backend, image=np.repeat(np.repeat(image, d.scale, 0), d.scale, 1))
            for image, d in zip(images, degradations, strict=True)
        ]
