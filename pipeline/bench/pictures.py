"""Pictures from nothing: what a machine without photographs is measured with."""

import numpy as np
import numpy.typing as npt


def drawn(height: int, width: int, seed: int, noise: float = 0.0) -> npt.NDArray[np.uint8]:
    """Edges, gradients and texture, the same for the same seed: (height, width, 3).

    noise: its standard deviation in levels of 255; with some, PNG takes as long as for a photograph.
    """
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    picture = np.zeros((height, width, 3), np.float32)
    for _ in range(40):
        a, b, c = rng.normal(size=3) / 40
        inside = (a * (x - width * rng.random()) + b * (y - height * rng.random()) + c) > 0
        picture += inside[:, :, None] * rng.normal(0, 20, 3).astype(np.float32)
    picture += 8 * np.sin(x / rng.uniform(2, 9) + y / rng.uniform(2, 9))[:, :, None]
    picture += rng.normal(0, noise, picture.shape)
    return np.clip(picture + 127, 0, 255).astype(np.uint8)


class Gradient:
    """A picture of any size that no memory has to hold: (h, w, 3) uint8, smooth, different everywhere."""

    dtype = np.dtype(np.uint8)

    def __init__(self, height: int, width: int) -> None:
        self.shape = (height, width, 3)

    def read(self, y0: int, y1: int, x0: int, x1: int) -> npt.NDArray[np.uint8]:
        y, x = np.arange(y0, y1, dtype=np.float32)[:, None], np.arange(x0, x1, dtype=np.float32)
        wave = 127 + 60 * np.sin(y / 37) + 60 * np.cos(x / 53)
        return np.repeat(wave.astype(np.uint8)[:, :, None], 3, axis=2)
