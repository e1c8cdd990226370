"""When a result does not explain its input: the limit of the consistency, and why it is there.

The consistency is the RMS of (result degraded again - input) in grey levels, a kernel radius inside
the border. With the right kernel, phase and sigma what is left over is the noise, or less of it
where the network took some for detail, and what the network could not explain; the two are
independent, so they add as squares:

    limit² = (1.02 σ)² + 1.5²

1.02    the RMS of N samples of noise scatters by 1/√(2N): 2% are three standard deviations of an
        image of 60×60 pixels in colour
1.5     grey levels: where, on 100 crops of photographs at sigma 0, 2.55 and 7.65, scales 1 to 4 and five
        kernels, the packaged weights' misfit parts right kernels from wrong ones (1.4 to 1.6 alike)

Measured on those crops (tests/measure/test_consistency.py prints the table): told its kernel, 1 of 100
is flagged; told a kernel of twice the width, 44 of 100. With 20 wrong ones among 100 items that is a
precision of 0.92 and a recall of 0.44. Better weights explain more, wrong kernels too, so the limit
follows them. What is missed has little detail, or a kernel below an LR pixel, or more noise than the
difference makes: then both kernels explain the image. A kernel too narrow is never found: it explains
any image.

Knows no file and no row.
"""

import math

_SCATTER = 1.02
_MISFIT_255 = 1.5


def limit(sigma_255: float) -> float:
    """The consistency in grey levels above which a result is flagged. sigma_255: of the noise."""
    return math.hypot(_SCATTER * sigma_255, _MISFIT_255)


def is_flagged(consistency_rms_255: float, sigma_255: float) -> bool:
    """Whether somebody should look: the result does not explain its input. It is no failure."""
    return not consistency_rms_255 <= limit(sigma_255)
