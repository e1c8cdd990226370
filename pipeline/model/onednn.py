"""The prior on a CPU: oneDNN's convolutions with packed weights and what follows each fused into it.

Same weights and same sums as `ResUNet`, in other words of the library: ReLU and the residual's
addition happen while a convolution's output is still in the cache, and the weights are laid out
once. Needs no compiler and no warm-up, and takes any shape. These are the operators that
`torch.compile` itself puts into a CPU's graph.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.model.prior import ResBlock, ResUNet

_ONE = [1, 1]
_NONE = [0, 0]


def is_available() -> bool:
    """True where this build of torch has the operators."""
    names = ("_convolution_pointwise", "_convolution_pointwise_", "_convolution_transpose_pointwise")
    return torch._C._has_mkldnn and all(hasattr(torch.ops.mkldnn, name) for name in names)


class FusedPrior:
    """A `ResUNet` for inference on a CPU, in float32 or bfloat16.

    Weights are packed at the first call, for good: oneDNN's layout depends on the channels and the
    instruction set, hardly on the picture's size.
    """

    def __init__(self, prior: ResUNet, dtype: torch.dtype) -> None:
        self._prior, self._dtype = prior, dtype
        self._packed: dict[nn.Module, Tensor] = {}

    @torch.inference_mode()
    def __call__(self, z: Tensor, beta: Tensor) -> Tensor:
        """P(z, β). z: (N, 3, H, W) float; beta: (N, 1, 1, 1). Returns like z."""
        p, (h, w) = self._prior, z.shape[-2:]
        x1 = self._convolve(p.m_head, self._input(z, beta))
        x2 = self._descend(p.m_down1, x1)
        x3 = self._descend(p.m_down2, x2)
        x4 = self._descend(p.m_down3, x3)
        x = x4.clone()
        for block in p.m_body:
            x = self._block(block, x)
        x = self._ascend(p.m_up3, x.add_(x4))
        x = self._ascend(p.m_up2, x.add_(x3))
        x = self._ascend(p.m_up1, x.add_(x2))
        rgb = self._convolve(p.m_tail, x.add_(x1))
        return rgb[..., :h, :w].to(z.dtype)

    def _input(self, z: Tensor, beta: Tensor) -> Tensor:
        """z and the noise map, channels last, H and W multiples of 8 as in `ResUNet.forward`."""
        n, _, h, w = z.shape
        if h % 8 or w % 8:
            z = F.pad(z, (0, -w % 8, 0, -h % 8), mode="replicate")
        shape = (n, 4, z.shape[-2], z.shape[-1])
        z_beta = torch.empty(shape, dtype=self._dtype, memory_format=torch.channels_last)
        z_beta[:, :3] = z
        z_beta[:, 3:] = beta
        return z_beta

    def _descend(self, down: nn.Sequential, x: Tensor) -> Tensor:
        *blocks, halve = down
        y = x.clone()  # x itself is the skip
        for block in blocks:
            y = self._block(block, y)
        return self._convolve(halve, y)

    def _ascend(self, up: nn.Sequential, x: Tensor) -> Tensor:
        double, *blocks = up
        x = self._double(double, x)
        for block in blocks:
            x = self._block(block, x)
        return x

    def _block(self, block: nn.Module, x: Tensor) -> Tensor:
        """x + conv(relu(conv(x))), written over x."""
        assert isinstance(block, ResBlock)
        hidden = self._convolve(block.res[0], x, "relu")
        conv = block.res[2]
        weight = self._weight(conv, hidden)
        added: Tensor = torch.ops.mkldnn._convolution_pointwise_(
            x, hidden, weight, None, conv.padding, conv.stride, _ONE, 1, "add", None, None, [], None
        )
        return added

    def _convolve(self, conv: nn.Module, x: Tensor, then: str = "none") -> Tensor:
        weight = self._weight(conv, x)
        convolved: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, weight, None, conv.padding, conv.stride, _ONE, 1, then, [], None
        )
        return convolved

    def _double(self, conv: nn.Module, x: Tensor) -> Tensor:
        if conv not in self._packed:
            weight = conv.get_parameter("weight").detach().to(self._dtype)
            self._packed[conv] = torch.ops.mkldnn._reorder_convolution_transpose_weight(
                weight, _NONE, _NONE, conv.stride, _ONE, 1, x.shape
            )
        doubled: Tensor = torch.ops.mkldnn._convolution_transpose_pointwise(
            x, self._packed[conv], None, _NONE, _NONE, conv.stride, _ONE, 1, "none", [], None
        )
        return doubled

    def _weight(self, conv: nn.Module, x: Tensor) -> Tensor:
        if conv not in self._packed:
            weight = conv.get_parameter("weight").detach().to(self._dtype)
            self._packed[conv] = torch.ops.mkldnn._reorder_convolution_weight(
                weight, conv.padding, conv.stride, _ONE, 1, x.shape
            )
        return self._packed[conv]
