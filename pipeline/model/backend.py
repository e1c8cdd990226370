"""In which numbers and by which code the prior runs: the choice behind `engine.precision` and `engine.compile`.

    onednn    CPU: convolutions with what follows fused in (`pipeline.model.onednn`); no warm-up
    eager     plain modules, channels last
    compiled  torch.compile, one graph for each shape

`auto` takes onednn on a CPU: measured, it is as fast as compiled code and starts at once. On a GPU
it compiles a shape when it has come `_COMPILE_AFTER` times, so that few images never pay for a
compilation. FFTs and the data step stay eager and fp32.
"""

import copy
from collections import Counter

import torch
from torch import Tensor

from pipeline.model import onednn
from pipeline.model.prior import ResUNet
from pipeline.model.usrnet import Denoise

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
COMPILE = ("auto", "off", "on")

_COMPILE_AFTER = 32


class Denoiser:
    """P(z, β) for inference: z (N, 3, H, W) float32, beta (N, 1, 1, 1) → like z.

    name: the code that runs it, one of the module's table; what the manifest tells.
    """

    def __init__(self, prior: ResUNet, device: torch.device, precision: str, compile: str = "auto") -> None:
        self.dtype = PRECISIONS[precision]
        self._modules = _on_device(prior, device, self.dtype)
        self._compile = compile
        if device.type == "cuda" and precision == "fp32":
            torch.backends.cudnn.allow_tf32 = False  # fp32 means it: TF32 has the 10 bits of fp16
        self._met: Counter[torch.Size] = Counter()
        self._compiled: Denoise | None = None
        self._fused = None
        if compile == "auto" and device.type == "cpu" and self.dtype != torch.float16 and onednn.is_available():
            self._fused = onednn.FusedPrior(self._modules, self.dtype)
        self.name = "onednn" if self._fused else "eager"

    def __call__(self, z: Tensor, beta: Tensor) -> Tensor:
        if self._fused is not None:
            return self._fused(z, beta)
        if self._wants_compiled(z):
            self._compiled = self._compiled or torch.compile(self._eager, dynamic=False)
            self.name = "compiled"
            return self._compiled(z, beta)
        return self._eager(z, beta)

    def _eager(self, z: Tensor, beta: Tensor) -> Tensor:
        z_beta = torch.cat((z, beta.expand(-1, 1, *z.shape[-2:])), dim=1)
        denoised: Tensor = self._modules(z_beta.to(self.dtype, memory_format=torch.channels_last))
        return denoised.to(z.dtype)

    def _wants_compiled(self, z: Tensor) -> bool:
        if self._compile == "auto" and z.is_cuda:
            self._met[z.shape] += 1
            return self._met[z.shape] > _COMPILE_AFTER
        return self._compile == "on"


def best_precision(device: torch.device) -> str:
    """bf16 where the hardware multiplies it natively, fp16 on older GPUs, else fp32."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else "fp32"


def _on_device(prior: ResUNet, device: torch.device, dtype: torch.dtype) -> ResUNet:
    prior = copy.deepcopy(prior).eval().requires_grad_(False).to(device, dtype)
    return prior.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]
