"""Table 1 of the USRNet paper for one's own weights and images, beside bicubic enlargement.

    python jobs/evaluate.py --images FOLDER --kernels FILE.npz#NAME [--weights URI ...]

The protocol, quirks included, is the authors' (pipeline/measure/paper.py); bicubic has its
half-pixel phase corrected. Without --weights the packaged ones are measured.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout need not be installed

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.errors import WeightsError
from pipeline.measure.paper import HrImage, bicubic_cell, table1_cell
from pipeline.model.checkpoint import load_usrnet

Kernels = npt.NDArray[np.float64]  # (n, kh, kw)
Cell = Callable[[npt.NDArray[np.float64], int, float], float]  # kernel, scale, sigma -> PSNR in dB

IMAGES = {".png", ".bmp", ".jpg", ".jpeg", ".tif", ".tiff", ".webp"}


def main(arguments: Sequence[str] | None = None) -> int:
    args = parse(arguments)
    try:
        nets = {uri: load_usrnet(uri) for uri in args.weights} or {"packaged": load_usrnet()}
    except WeightsError as error:
        print(error, file=sys.stderr)
        return 2
    cells = {uri: partial(table1_cell, net, args.images) for uri, net in nets.items()}
    lines = []
    for line in table({"bicubic": partial(bicubic_cell, args.images), **cells}, args):
        print(line, flush=True)
        lines.append(line)
    if args.out:
        args.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0


def table(methods: dict[str, Cell], args: argparse.Namespace) -> Iterator[str]:
    """Markdown, line by line: a row for each scale and kernel, a mean for each scale."""
    yield f"| scale | kernel | {' | '.join(Path(name).stem for name in methods)} |"
    yield "|---|---|" + "---:|" * len(methods)
    for scale in args.scales:
        rows = []
        for number, kernel in enumerate(args.kernels, start=1):
            rows.append([cell(kernel, scale, args.sigma) for cell in methods.values()])
            yield row(f"x{scale}", str(number), rows[-1])
        yield row(f"x{scale}", "mean", np.mean(rows, axis=0).tolist())


def row(scale: str, kernel: str, psnr_db: Sequence[float]) -> str:
    return f"| {scale} | {kernel} | {' | '.join(f'{value:.2f}' for value in psnr_db)} |"


def read_images(folder: str) -> list[HrImage]:
    files = sorted(file for file in Path(folder).glob("*") if file.suffix.lower() in IMAGES)
    if not files:
        raise argparse.ArgumentTypeError(f"there is no image in {folder}")
    return [np.asarray(Image.open(file).convert("RGB")) for file in files]


def read_kernels(uri: str) -> Kernels:
    """FILE.npz#NAME, holding (n, kh, kw) or (kh, kw)."""
    file, _, name = uri.partition("#")
    try:
        kernels = np.asarray(np.load(file)[name], np.float64)
    except (OSError, KeyError, IndexError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{uri} holds no kernels: {error}") from None
    return kernels.reshape(-1, *kernels.shape[-2:])


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=read_images, required=True, metavar="FOLDER", help="HR images")
    parser.add_argument("--kernels", type=read_kernels, required=True, metavar="FILE.npz#NAME")
    parser.add_argument("--weights", action="append", default=[], metavar="URI", help="may be repeated")
    parser.add_argument("--scales", type=int, nargs="+", default=[2, 3, 4])
    parser.add_argument("--sigma", type=float, default=0.0, help="noise in grey levels of 0-255")
    parser.add_argument("--out", type=Path, help="write the table here as well")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
