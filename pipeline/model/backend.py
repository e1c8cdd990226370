"""In which numbers and by which code the prior runs: the choice behind `engine.precision` and `engine.compile`.

    onednn    CPU: convolutions with what follows fused in (`pipeline.model.onednn`); no warm-up
    eager     plain modules, channels last
    compiled  torch.compile, one graph for each shape

`auto` takes onednn on a CPU: measured, it is as fast as compiled code and starts at once. On a GPU
it compiles a shape when `_COMPILE_AFTER` batches of it have come, so that few images never pay for a
compilation. Where compiling fails (no C compiler, say) all is eager from then on. FFTs and the data
step stay eager and fp32.
"""

import copy
import logging
from collections import Counter
from math import inf

import torch
from torch import Tensor

from pipeline.model import onednn
from pipeline.model.memory import ran_out_of_memory
from pipeline.model.prior import ResUNet
from pipeline.model.usrnet import Denoise

Shape = tuple[int, int, int]

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
COMPILE = ("auto", "off", "on")

_COMPILE_AFTER = 32
_COMPILED_AT_MOST = 8  # shapes: torch.compile's own limit, beyond which it refuses

_log = logging.getLogger(__name__)


class Denoiser:
    """P(z, β) for inference: z (N, 3, H, W) float32, beta (N, 1, 1, 1) → like z.

    name: the code that ran it last, one of the module's table; what the manifest tells.
    """

    def __init__(self, prior: ResUNet, device: torch.device, precision: str, compile: str = "auto") -> None:
        self.dtype = PRECISIONS[precision]
        self._modules = _on_device(prior, device, self.dtype)
        self._compile_after = {"on": 0, "auto": _COMPILE_AFTER if device.type == "cuda" else inf, "off": inf}[compile]
        if device.type == "cuda" and precision == "fp32":
            torch.backends.cudnn.allow_tf32 = False  # fp32 means it: TF32 has the 10 bits of fp16
        self._met: Counter[Shape] = Counter()
        self._compiled: Denoise | None = None
        self._shapes: set[Shape] = set()
        self._fused = None
        if compile == "auto" and device.type == "cpu" and self.dtype != torch.float16 and onednn.is_available():
            self._fused = onednn.FusedPrior(self._modules, self.dtype)
        self.name = "onednn" if self._fused else "eager"

    def expect(self, shape: Shape) -> None:
        """To be told once a batch: all its passes will have this shape (N, H, W)."""
        self._met[shape] += 1
        if self._met[shape] > self._compile_after and len(self._shapes) < _COMPILED_AT_MOST:
            self._shapes.add(shape)

    def __call__(self, z: Tensor, beta: Tensor) -> Tensor:
        if self._fused is not None:
            return self._fused(z, beta)
        if (z.shape[0], z.shape[2], z.shape[3]) in self._shapes:
            return self._compiled_or_eager(z, beta)
        self.name = "eager"
        return self._eager(z, beta)

    def _compiled_or_eager(self, z: Tensor, beta: Tensor) -> Tensor:
        try:
            self._compiled = self._compiled or torch.compile(self._eager, dynamic=False, fullgraph=True)
            denoised = self._compiled(z, beta)
        except (RuntimeError, ImportError, OSError) as error:  # torch's errors are RuntimeErrors, Triton's some of each
            if ran_out_of_memory(error):
                raise
            _log.warning("torch.compile failed, so the prior stays eager: %s", str(error).partition("\n")[0])
            self._compile_after, self.name = inf, "eager"
            self._shapes.clear()
            return self._eager(z, beta)
        self.name = "compiled"
        return denoised

    def _eager(self, z: Tensor, beta: Tensor) -> Tensor:
        z_beta = torch.cat((z, beta.expand(-1, 1, *z.shape[-2:])), dim=1)
        denoised: Tensor = self._modules(z_beta.to(self.dtype, memory_format=torch.channels_last))
        return denoised.to(z.dtype)


def best_precision(device: torch.device) -> str:
    """bf16 where the hardware multiplies it natively, fp16 on older GPUs, else fp32."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else "fp32"


def _on_device(prior: ResUNet, device: torch.device, dtype: torch.dtype) -> ResUNet:
    prior = copy.deepcopy(prior).eval().requires_grad_(False).to(device, dtype)
    return prior.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]
