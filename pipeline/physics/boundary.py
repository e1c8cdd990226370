"""A real image is not periodic, the data step's Fourier transform is: extend it smoothly first.

The extension to the right of (and below) the image fades from the mirrored right edge into the
mirrored left edge, so the periodic image has no step anywhere. Crop afterwards.

Knows no network and no file.
"""

import torch
from torch import Tensor


def extend_periodic(image: Tensor, height: int, width: int) -> Tensor:
    """(..., h, w) → (..., height, width): `image` at the upper left, a seamless torus all around.

    height >= h, width >= w. Values stay within the image's own range.
    """
    return _extend_last(_extend_last(image, width).mT, height).mT.contiguous()


def _extend_last(image: Tensor, width: int) -> Tensor:
    w = image.shape[-1]
    margin = width - w
    if margin < 0:
        raise ValueError(f"cannot extend {w} pixels to {width}")
    if margin == 0:
        return image
    step = torch.arange(margin, device=image.device)
    from_right = image[..., _mirrored(w - 1 - step, w)]
    from_left = image[..., _mirrored(margin - 1 - step, w)]
    fade = 0.5 - 0.5 * torch.cos(torch.pi * (step.to(image.dtype) + 0.5) / margin)
    return torch.cat((image, torch.lerp(from_right, from_left, fade)), dim=-1)


def _mirrored(index: Tensor, n: int) -> Tensor:
    """Index into an n-long axis mirrored with its edges repeated, however far outside."""
    index = index % (2 * n)
    return torch.where(index < n, index, 2 * n - 1 - index)
