"""How far from a cut a picture still differs from the same picture restored whole: why windows overlap.

Both are restored in fp32 from 16-bit samples, so that rounding hides nothing above some 100 dB.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pipeline.measure.metrics import psnr
from pipeline.model.restore import Restored, Restorer
from pipeline.model.usrnet import USRNet
from pipeline.physics.degradation import degrade
from pipeline.records import Degradation

Samples = npt.NDArray[np.float64]

DISTANCES = (8, 16, 24, 32, 48, 64, 80, 96, 128)  # HR pixels from the cut
BAND = 16  # HR pixels that a figure is the mean of, from its distance on


def agreement(net: USRNet, pictures: Sequence[Samples], degradation: Degradation) -> list[float | None]:
    """PSNR (dB) between whole and cut by distance from the cut; None where nothing is so far from it.

    pictures: HR, (H, W, 3) in [0, 1]; their right half is what is cut away.
    """
    restorer, errors = Restorer(net, precision="fp32"), []
    rng, s = np.random.default_rng(0), degradation.scale
    for hr in pictures:
        hr = hr[: hr.shape[0] // s * s, : hr.shape[1] // (2 * s) * 2 * s]
        lr = degrade(hr, degradation.kernel, s, degradation.sigma, boundary="reflect", rng=rng)
        samples = np.rint(lr.clip(0, 1) * 65535).astype(np.uint16)
        whole, part = (_restored(restorer, y, degradation) for y in (samples, samples[:, : samples.shape[1] // 2]))
        errors.append((whole[:, : part.shape[1]], part))
    return [_psnr_at(errors, distance) for distance in DISTANCES]


def _restored(restorer: Restorer, lr: npt.NDArray[np.uint16], degradation: Degradation) -> Samples:
    (result,) = restorer.batch([lr], [degradation])
    if not isinstance(result, Restored):
        raise result
    return result.image.astype(np.float64) / 65535 * 255


def _psnr_at(pairs: Sequence[tuple[Samples, Samples]], distance: int) -> float | None:
    """Over all pictures together, `distance` to `distance + BAND` columns left of the cut."""
    bands = [(a[:, -distance - BAND : -distance], b[:, -distance - BAND : -distance]) for a, b in pairs]
    if min(a.shape[1] for a, _ in bands) < BAND:
        return None
    return psnr(*(np.concatenate([band[n] for band in bands]) for n in (0, 1)))
