"""Gather the training photographs that Debian packages ship into one folder of clean HR images.

    python jobs/gather_photographs.py FOLDER

Downloads each package named in `pipeline/training/photographs.tsv` (apt-get download, nothing is
installed), takes the listed photographs, shrinks each until its JPEG artefacts vanish, and writes
lossless WebP plus LICENCES.tsv. Photographs already there are left alone, so it can be repeated.
"""

import csv
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib import resources
from itertools import groupby
from pathlib import Path

from PIL import Image

Photograph = dict[str, str]


def main(folder: Path) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    listed = list(photographs())
    for package, rows in groupby(listed, key=lambda row: row["package"]):
        wanted = [row for row in rows if not target(folder, row).exists()]
        if wanted:
            with tempfile.TemporaryDirectory() as scratch:
                unpack(package, Path(scratch))
                for row in wanted:
                    shrink(Path(scratch, "files", row["path"]), target(folder, row), float(row["downscale"]))
        print(f"{package}: {len(wanted)} photographs added", flush=True)
    write_licences(folder, listed)
    return 0


def photographs() -> Iterator[Photograph]:
    """Rows of package, path, downscale, licence."""
    listing = resources.files("pipeline.training") / "photographs.tsv"
    with listing.open(encoding="utf-8") as file:
        yield from csv.DictReader(file, delimiter="\t")


def target(folder: Path, row: Photograph) -> Path:
    return folder / f"{row['package']}__{Path(row['path']).stem}.webp"


def unpack(package: str, scratch: Path) -> None:
    subprocess.run(["apt-get", "download", package], cwd=scratch, check=True, capture_output=True)
    (archive,) = scratch.glob("*.deb")
    subprocess.run(["dpkg-deb", "-x", archive, scratch / "files"], check=True)


def shrink(source: Path, destination: Path, factor: float) -> None:
    with Image.open(source) as image:
        size = (round(image.width / factor), round(image.height / factor))
        clean = image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    partial = destination.with_suffix(".part")
    clean.save(partial, format="WEBP", lossless=True, quality=20, method=2)
    partial.rename(destination)


def write_licences(folder: Path, listed: list[Photograph]) -> None:
    lines = [f"{target(folder, row).name}\t{row['package']}\t{row['path']}\t{row['licence']}" for row in listed]
    (folder / "LICENCES.tsv").write_text("file\tpackage\tpath\tlicence\n" + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(Path(sys.argv[1])))
