"""Between images as users have them and tensors as the network has them."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import ItemError
from pipeline.model.transfer import Transfer
from pipeline.records import Pixels, white

Image = Pixels

_SAMPLES = {
    np.dtype(np.uint8): torch.uint8,
    np.dtype(np.uint16): torch.uint16,
    np.dtype(np.float32): torch.float32,
}


def check(shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Raises `ItemError` for anything but a (h, w, 3) or (h, w) image of uint8, uint16 or float32."""
    if dtype not in _SAMPLES or len(shape) not in (2, 3) or shape[2:] not in ((), (3,)):
        raise ItemError(
            "unsupported-mode", f"an image must be (h, w, 3) or (h, w) uint8, uint16 or float32, not {shape} {dtype}"
        )
    if 0 in shape:
        raise ItemError("corrupt-image", f"the image has no pixels: {shape}")


def unit_range(image: Image, transfer: Transfer) -> Tensor:
    """(h, w[, 3]) samples → (3, h, w) float32 in [0, 1] on the device; gray becomes three equal channels."""
    unit = transfer.floats(image).div_(white(image.dtype))
    return unit.permute(2, 0, 1) if image.ndim == 3 else unit.expand(3, -1, -1)


def rounded(sr: Tensor, dtype: np.dtype[Any], gray: bool) -> Tensor:
    """(3, H, W) float → (H, W[, 3]) samples of `dtype`, where `sr` lies; a gray picture is the channels' mean."""
    picture = sr.mean(dim=0) if gray else sr.permute(1, 2, 0)
    levels = picture.clamp(0, 1)
    if dtype.kind != "f":
        levels = levels.mul_(white(dtype)).round_()
    return levels.to(_SAMPLES[dtype]).contiguous()


class Canvas:
    """Where the windows of an image, or of a strip of it, add up: (3, height, width) float32 in main memory."""

    def __init__(self, height: int, width: int) -> None:
        self.pixels = torch.zeros(3, height, width)

    def add(self, sr: Tensor, y: int, x: int, weight: Tensor) -> None:
        """sr: (3, rows, columns) in main memory, its upper left at (y, x); weight: (rows, columns)."""
        self.pixels[:, y : y + sr.shape[1], x : x + sr.shape[2]] += sr * weight

    def take_rows(self, count: int) -> Tensor:
        """The first `count` rows, finished; the others move up, and nothing lies below them."""
        finished = self.pixels[:, :count].clone()
        rest = self.pixels.shape[1] - count
        self.pixels[:, :rest] = self.pixels[:, count:].clone()
        self.pixels[:, rest:] = 0
        return finished
