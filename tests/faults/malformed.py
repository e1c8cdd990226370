"""Damage done to sound files, and what becomes of each: run as a process of its own under a memory limit.

    python malformed.py FOLDER COUNT    prints one JSON line for each of COUNT inputs

A line says the kind of file, the number of the damage, the outcome, seconds and the peak RSS in MiB.
"""

import io
import json
import random
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from pipeline.config.load import load_config
from pipeline.config.upscale import UpscaleConfig
from pipeline.data import kernels
from pipeline.errors import UnfoldError
from pipeline.records import Item
from pipeline.resolve import Defaults, Limits
from pipeline.stages.read import ReadLimits, read
from pipeline.survey import survey

MEMORY = 8 * 2**30  # address space; the interpreter, Arrow and numpy reserve two of it
READ_LIMITS = ReadLimits(2**22, 2**22, 256)
LIMITS = Limits(scale=16, kernel=256, lr_pixels=2**22, bytes=2**22)


def picture(format: str, **options: object) -> bytes:
    y, x = np.mgrid[:48, :64]
    pixels = np.stack([4 * x, 5 * y, (x * y) % 256], 2).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format, **options)
    return file.getvalue()


def parquet() -> bytes:
    rows = {"uri": [f"{n}.png" for n in range(50)], "scale": [2] * 50, "sigma": [2.55] * 50, "kernel": ["delta"] * 50}
    file = io.BytesIO()
    pq.write_table(pa.table(rows), file)
    return file.getvalue()


def npy() -> bytes:
    file = io.BytesIO()
    np.save(file, np.random.default_rng(0).random((15, 15)))
    return file.getvalue()


CSV = b"uri,scale,sigma,kernel,id\n" + b"".join(b'"%d.png",2,2.55,"gaussian(1.6)",i%d\n' % (n, n) for n in range(40))
YAML = b"catalog: c.csv\noutput: out\ndefaults: {scale: 2, sigma: 2.55}\nrestore:\n  replicas:\n    max: 3\n"
SOUND: dict[str, bytes] = {
    "png": picture("PNG"),
    "jpeg": picture("JPEG", quality=90),
    "tiff": picture("TIFF", compression="tiff_lzw"),
    "webp": picture("WEBP", quality=80),
    "parquet": parquet(),
    "csv": CSV,
    "yaml": YAML,
    "npy": npy(),
}


def damaged(data: bytes, chance: random.Random) -> bytes:
    """`data` with some bytes flipped, a part cut out, doubled or blown up, or a number made enormous."""
    damage = bytearray(data)
    for _ in range(chance.choice([1, 1, 2, 8, 40])):
        place, kind = chance.randrange(max(1, len(damage))), chance.randrange(6)
        head = chance.randrange(min(len(damage), 64)) if damage else 0
        if kind == 0:
            damage[place : place + 1] = bytes([chance.randrange(256)])
        elif kind == 1:
            del damage[place:]
        elif kind == 2:
            del damage[place : place + chance.randrange(1, 64)]
        elif kind == 3:
            damage[place:place] = damage[place : place + 200] * chance.randrange(1, 20)
        elif kind == 4:
            damage[head : head + 4] = b"\xff\xff\xff\x7f"
        else:
            damage[place:place] = chance.randbytes(chance.randrange(1, 100))
    return bytes(damage)


def outcome(kind: str, path: Path) -> str:
    """ok, or the error by its class or code: whatever else is raised ends this process."""
    doors: dict[str, Callable[[Path], str]] = {"npy": kernel, "yaml": configuration, "csv": catalog, "parquet": catalog}
    try:
        return doors.get(kind, image)(path)
    except UnfoldError as error:
        if not str(error).strip():
            return "an error without words"
        return getattr(error, "code", type(error).__name__)


def image(path: Path) -> str:
    (work,) = read([Item("a", str(path), "a", 2, 0.0, "delta", "center")], limits=READ_LIMITS)
    return work.outcome.error_code or "ok"


def kernel(path: Path) -> str:
    kernels.load_kernel(str(path), 2, "center", max_width=256)
    return "ok"


def configuration(path: Path) -> str:
    load_config(UpscaleConfig, path)
    return "ok"


def catalog(path: Path) -> str:
    made = survey(
        str(path),
        f"{path.parent}/out",
        root=None,
        defaults=Defaults(),
        limits=LIMITS,
        key_template=None,
        encode={"format": "png"},
        model_id="m",
        retry_failed="transient",
        wave_items=10**6,
        warn=lambda _: None,
    ).plan(0)
    return f"{len(made.todo)} to do, {len(made.invalid)} failed rows"


def main() -> None:
    folder, count = Path(sys.argv[1]), int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    for number in range(count):
        kind = list(SOUND)[number % len(SOUND)]
        path = folder / f"{number}.{kind}"
        path.write_bytes(damaged(SOUND[kind], random.Random(number)))
        begin = time.monotonic()
        told = outcome(kind, path)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps([kind, number, told, time.monotonic() - begin, peak]), flush=True)


if __name__ == "__main__":
    main()
