"""A small archive of real photographs, degraded, restored by the main job, and compared.

    python jobs/make_demo.py [FOLDER]        (default: demo/)

The photographs are those that scikit-image ships. Two failures are planted: a truncated file and a
missing object. Prints the main job's own words, then PSNR against the ground truth beside
bicubic's, and where to look.
"""

import csv
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import numpy.typing as npt
import skimage
from PIL import Image

from jobs.program import OK, TOO_MANY_FAILED, run
from pipeline.data import manifest
from pipeline.measure.metrics import psnr
from pipeline.physics.degradation import degrade
from pipeline.physics.kernels import parse_kernel
from pipeline.physics.resample import upscale_bicubic

Pixels = npt.NDArray[np.uint8]

SUBJECTS = {
    "people": ("astronaut.png",),
    "animals": ("chelsea.png",),
    "still-life": ("coffee.png", "coins.png"),
    "technology": ("rocket.jpg", "motorcycle_left.png", "camera.png"),
    "microscopy": ("ihc.png", "cell.png"),
    "sky": ("hubble_deep_field.jpg", "moon.png"),
    "textures": ("brick.png", "grass.png", "gravel.png"),
}
KERNELS = ("gaussian(1.2)", "gaussian(2.0, 0.8, 30)", "disk(2.5)", "motion(9, 20)")
SCALES = (1, 2, 3, 4)
SIGMAS = (0.0, 2.55, 7.65)
PLANTED = ("archive/damaged/truncated.png", "archive/damaged/missing.png")


@dataclass(frozen=True)
class Sample:
    """One row of the demo's catalog: uri and hr_uri below the demo folder."""

    uri: str
    hr_uri: str
    kernel: str
    scale: int
    sigma: float


def main(folder: Path) -> int:
    samples = make_archive(folder)
    write_catalog(folder, samples)
    print(f"{len(samples) + len(PLANTED)} items in {folder / 'catalog.csv'}, two of them bad on purpose\n", flush=True)
    code = subprocess.run(
        [
            sys.executable,
            str(Path(__file__).with_name("upscale_archive.py")),
            f"catalog={folder / 'catalog.csv'}",
            f"output={folder / 'restored'}",
            "run.report=true",
        ],
        check=False,
    ).returncode
    if code not in (OK, TOO_MANY_FAILED):
        return code
    outcomes = {row["uri"]: row for row in manifest.current(str(folder / "restored")).to_pylist()}
    why = "finished, with failed items" if code == TOO_MANY_FAILED else "nothing was left to do, it ran before"
    print(f"\nThe job said {code}: {why}. The failed items are the two planted ones:")
    failed = sorted(row["uri"] for row in outcomes.values() if row["status"] == "failed")
    for uri in failed:
        print(f"  {uri}: {outcomes[uri]['error_code']}: {outcomes[uri]['error']}")
    compare(folder, samples, outcomes)
    expected = sorted(str(folder / uri) for uri in PLANTED)
    return OK if failed == expected else 1


def make_archive(folder: Path) -> list[Sample]:
    """Degrade a crop of every photograph twice, with its own settings; plant the damaged file."""
    rng = np.random.default_rng(20)
    samples = []
    photographs = [(subject, name) for subject, names in SUBJECTS.items() for name in names]
    for number, (subject, name) in enumerate(photographs * 2):
        scale, kernel = SCALES[number % 4], KERNELS[(number + number // 4) % 4]
        sigma = SIGMAS[number % 3]
        hr = crop(photograph(name), rng, scale)
        stem = f"{Path(name).stem}-{number}"
        sample = Sample(f"archive/{subject}/{stem}.png", f"truth/{subject}/{stem}.png", kernel, scale, sigma)
        lr = degrade(hr / 255, parse_kernel(kernel, scale, "center"), scale, sigma, boundary="reflect", rng=rng)
        save(folder / sample.hr_uri, hr)
        save(folder / sample.uri, np.rint(lr.clip(0, 1) * 255).astype(np.uint8))
        samples.append(sample)
    damaged = folder / PLANTED[0]
    damaged.parent.mkdir(parents=True, exist_ok=True)
    whole = (folder / samples[0].uri).read_bytes()
    damaged.write_bytes(whole[: len(whole) // 2])
    return samples


def photograph(name: str) -> Pixels:
    """(h, w, 3), or (h, w) for gray ones."""
    with Image.open(Path(skimage.__file__).parent / "data" / name) as image:
        return np.asarray(image if image.mode == "L" else image.convert("RGB"))


def crop(photo: Pixels, rng: np.random.Generator, scale: int) -> Pixels:
    """A random crop of 190 to 330 pixels each way, a multiple of `scale`."""
    h, w = (min(int(rng.integers(190, 330)), n) // scale * scale for n in photo.shape[:2])
    top, left = (int(rng.integers(0, n - m + 1)) for n, m in zip(photo.shape[:2], (h, w), strict=True))
    return photo[top : top + h, left : left + w]


def write_catalog(folder: Path, samples: list[Sample]) -> None:
    with (folder / "catalog.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("uri", "scale", "sigma", "kernel", "hr_uri"))
        for s in samples:
            table.writerow((s.uri, s.scale, s.sigma, s.kernel, s.hr_uri))
        for uri in PLANTED:
            table.writerow((uri, 2, 2.55, KERNELS[0], ""))


def compare(folder: Path, samples: list[Sample], outcomes: dict[str, dict[str, object]]) -> None:
    """Print each item's PSNR beside bicubic's, their means by scale, and where the pictures lie."""
    print(f"\n{'item':<34} {'scale':>5} {'sigma':>5}  {'kernel':<22} {'bicubic':>8} {'restored':>8}")
    gains: dict[int, list[tuple[float, float]]] = {}
    sheet = []
    for sample in samples:
        outcome = outcomes[str(folder / sample.uri)]
        if outcome["status"] != "done":
            continue
        lr, sr, hr = (load(Path(str(uri))) for uri in (outcome["uri"], outcome["sr_uri"], folder / sample.hr_uri))
        bicubic = np.rint(upscale_bicubic(lr, sample.scale, "center").clip(0, 255)).astype(np.uint8)
        scores = tuple(psnr(image, hr, border=sample.scale**2) for image in (bicubic, sr))
        gains.setdefault(sample.scale, []).append((scores[0], scores[1]))
        sheet.append((bicubic, sr, hr))
        name = sample.uri.removeprefix("archive/")
        print(f"{name:<34} {sample.scale:>5} {sample.sigma:>5}  {sample.kernel:<22} {scores[0]:8.2f} {scores[1]:8.2f}")
    print("\nmean PSNR in dB, higher is better")
    for scale, pairs in sorted(gains.items()):
        bicubic_db, restored_db = np.mean(pairs, axis=0)
        what = "as it is" if scale == 1 else "bicubic"
        print(f"  scale {scale}: {what} {bicubic_db:.2f}, restored {restored_db:.2f} ({restored_db - bicubic_db:+.2f})")
    save(folder / "compare.png", contact_sheet(sheet[:8]))
    print(f"\nlook at     {folder / 'compare.png'} (bicubic | restored | truth)")
    print(f"report      {folder / 'restored' / 'report.html'}")
    print(f"images      {folder / 'restored' / 'images'}")
    print(f"manifest    {folder / 'restored' / 'manifest'}")


def contact_sheet(rows: list[tuple[Pixels, Pixels, Pixels]], size: int = 190) -> Pixels:
    """Rows of three pictures, each cut to size×size, as one RGB picture."""
    return np.concatenate([np.concatenate([rgb(image)[:size, :size] for image in row], axis=1) for row in rows])


def rgb(image: Pixels) -> Pixels:
    return image if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2)


def load(path: Path) -> Pixels:
    with Image.open(path) as image:
        return np.asarray(image)


def save(path: Path, pixels: Pixels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "demo")
    sys.exit(run(lambda: main(target.resolve())))
