"""Peak memory of a worker by image size: each size in a process of its own, above what the imports take.

    batch     a picture in memory, restored by `Restorer.batch`
    windows   a picture made up row by row, restored by `Restorer.windows`; nothing keeps the result

With the pass-through network the windows, the blending and the data step's Fourier transforms are
as always, for one iteration, and only the prior is left out, so that hundreds of megapixels take minutes.
"""

import json
import resource
import subprocess
import sys
from typing import Any

from pipeline.bench.pictures import Gradient

SIZES = (("batch", 1), ("batch", 4), ("windows", 16), ("windows", 100), ("windows", 400))  # mode, HR megapixels


def peak_rss_mib(mode: str, hr_megapixels: float, scale: int = 4, memory: int | None = None) -> float:
    """MiB of peak resident memory above the imports, measured in a new process."""
    arguments = [sys.executable, "-m", __name__, mode, str(hr_megapixels), str(scale), str(memory or 0)]
    shown = subprocess.run(arguments, capture_output=True, text=True, check=True)
    return float(json.loads(shown.stdout)["mib"])


def _child(mode: str, hr_megapixels: float, scale: int, memory: int) -> dict[str, Any]:
    import torch

    from pipeline.bench.passthrough import pass_through
    from pipeline.model.checkpoint import load_usrnet
    from pipeline.model.restore import Restored, Restorer
    from pipeline.physics.kernels import parse_kernel
    from pipeline.records import Degradation

    side = round((hr_megapixels * 1e6) ** 0.5 / scale)
    source = Gradient(side, side)
    degradation = Degradation(parse_kernel("gaussian(1.6)", scale), scale, 2.55)
    torch.ones(8, 8) @ torch.ones(8, 8)  # what a library allocates once belongs to the imports
    before = _peak()
    if mode == "batch":
        restorer = Restorer(load_usrnet(), memory=memory or None)
        (result,) = restorer.batch([source.read(0, side, 0, side)], [degradation])
        assert isinstance(result, Restored)
    else:
        restorer = Restorer(pass_through(), memory=memory or None)
        rows = sum(len(tile) for _, _, tile in restorer.windows(source, degradation))
        assert rows == side * scale
    return {"mib": _peak() - before}


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    mode, megapixels, scale, memory = sys.argv[1:]
    print(json.dumps(_child(mode, float(megapixels), int(scale), int(memory))))
