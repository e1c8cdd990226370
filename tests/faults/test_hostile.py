"""Input that nobody would send in good faith: a failed row or a clear error each, in bounded memory and time."""

import io
import json
import pickle
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import ERROR_CODES, ItemError, WeightsError
from pipeline.model.checkpoint import load_usrnet
from pipeline.plan import Plan
from pipeline.records import Item
from pipeline.resolve import Defaults, Limits
from pipeline.stages.read import ReadLimits, read
from pipeline.survey import survey

HERE = Path(__file__).resolve().parent
CLEAR = {*ERROR_CODES, "ok", "CatalogError", "ConfigError"} - {"internal"}
LIMITS = Limits(scale=16, kernel=512, lr_pixels=10**6, bytes=10**7, allowed_roots=None)


def test_two_hundred_damaged_files_each_have_a_clear_end(tmp_path: Path) -> None:
    command = [sys.executable, str(HERE / "malformed.py"), str(tmp_path), "200"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=200, cwd=HERE.parents[1], check=False)
    assert shown.returncode == 0, shown.stderr[-3000:]
    lines = [json.loads(line) for line in shown.stdout.splitlines()]
    assert len(lines) == 200
    unclear = [line for line in lines if line[2] not in CLEAR and " to do, " not in line[2]]
    assert unclear == []
    assert len({line[2] for line in lines}) > 8, "the damage is of many kinds"
    assert sum(line[2] == "ok" for line in lines) < 100, "and most of it matters"
    assert max(line[3] for line in lines) < 60
    assert lines[-1][4] - lines[7][4] < 500, "MiB that the peak grew by, after one of each kind"


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, data: bytes) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def bomb() -> bytes:
    """144 megapixels of nothing in 140 kB."""
    packer = zlib.compressobj(9)
    row = bytes(12_001)
    return png(12_000, 12_000, b"".join(packer.compress(row) for _ in range(12_000)) + packer.flush())


def tiff_bomb() -> bytes:
    file = io.BytesIO()
    Image.new("L", (16, 16)).save(file, "TIFF")
    data = bytearray(file.getvalue())
    (start,) = struct.unpack_from("<I", data, 4)
    for entry in range(struct.unpack_from("<H", data, start)[0]):
        place = start + 2 + 12 * entry
        if struct.unpack_from("<H", data, place)[0] in (256, 257):
            struct.pack_into("<HII", data, place + 2, 4, 1, 2**31 - 1)
    return bytes(data)


IMAGES = {
    "bomb.png": (bomb, "over-limit"),
    "long.png": (lambda: png(1_500_000, 1, zlib.compress(bytes(1_500_001))), "over-limit"),
    "huge.png": (lambda: png(2**31 - 1, 2**31 - 1, b""), "over-limit"),
    "none.png": (lambda: png(0, 10, zlib.compress(b"")), "corrupt-image"),
    "lies.png": (lambda: png(900, 900, zlib.compress(b"")), "corrupt-image"),
    "bomb.tif": (tiff_bomb, "over-limit"),
    "many.bin": (lambda: bytes(10**7 + 1), "over-limit"),
    "zero.png": (lambda: b"", "input-empty"),
    "page.html": (lambda: b"<html>" * 1000, "not-an-image"),
}


@pytest.mark.parametrize(("name", "code"), [(name, code) for name, (_, code) in IMAGES.items()])
def test_a_hostile_image_is_a_failed_row_before_it_takes_memory(name: str, code: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(IMAGES[name][0]())
    limits = ReadLimits(LIMITS.lr_pixels, LIMITS.bytes, LIMITS.kernel)
    (work,) = read([Item("a", str(path), "a", 2, 0.0, "delta", "center")], limits=limits)
    assert work.outcome.error_code == code
    assert len(str(work.outcome.error)) < 500


def kernel_file(folder: Path, name: str, values: Any) -> None:
    np.save(folder / name, values)


def plan_of(folder: Path, rows: list[dict[str, object]], **limits: Any) -> Plan:
    (folder / "catalog.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return survey(
        str(folder / "catalog.jsonl"),
        str(folder / "out"),
        root=None,
        defaults=Defaults(kernel="delta", sigma=0.0, scale=2),
        limits=Limits(**{**vars(LIMITS), **limits}),
        key_template=None,
        encode={"format": "png"},
        model_id="m",
        retry_failed="transient",
        wave_items=10**6,
        warn=lambda _: None,
    ).plan(0)


ROWS: list[tuple[dict[str, object], str]] = [
    ({"scale": 0}, "bad-scale"),
    ({"scale": -1}, "bad-scale"),
    ({"scale": 1.5}, "bad-scale"),
    ({"scale": 64}, "over-limit"),
    ({"scale": 10**400}, "over-limit"),
    ({"scale": "two"}, "bad-scale"),
    ({"scale": True}, "bad-scale"),
    ({"scale": [2]}, "bad-scale"),
    ({"sigma": 1e9}, "bad-sigma"),
    ({"sigma": float("nan")}, "bad-sigma"),
    ({"sigma": {"a": 1}}, "bad-sigma"),
    ({"kernel": "gaussian(4000)"}, "over-limit"),
    ({"kernel": "disk(1000000000)"}, "bad-kernel"),
    ({"kernel": "gaussian(" * 500}, "bad-kernel"),
    ({"kernel": "__import__('os').system('true')"}, "bad-kernel"),
    ({"kernel_values": [[float("nan")]]}, "bad-kernel"),
    ({"kernel_values": [[1.0] * 600] * 600}, "over-limit"),
    ({"kernel_values": [[1.0], [1.0, 2.0]]}, "bad-kernel"),
    ({"uri": "a\u0000b.png"}, "bad-metadata"),
    ({"uri": "a\nb.png"}, "bad-metadata"),
    ({"uri": 7}, "bad-metadata"),
    ({"uri": "s3://bucket/../x.png"}, "bad-metadata"),
    ({"uri": "s3://me:secret@host/x.png"}, "bad-metadata"),
    ({"page": -1}, "bad-metadata"),
    ({"page": 1e300}, "bad-metadata"),
    ({"width": "wide"}, "bad-metadata"),
    ({"width": 10**6, "height": 10**6}, "over-limit"),
    ({"size": 10**12}, "over-limit"),
    ({"phase": "middle"}, "bad-metadata"),
]


def test_each_hostile_row_fails_by_its_own_code_and_the_others_go_on(tmp_path: Path) -> None:
    rows = [{"uri": f"{n}.png", "id": f"bad-{n}", **row} for n, (row, _) in enumerate(ROWS)]
    made = plan_of(tmp_path, [{"uri": "good.png"}, *rows, {"uri": "also good.png"}])
    assert [item.key for item in made.todo] == ["good.png", "also good.png"]
    codes = {outcome.item_id: outcome.error_code for outcome in made.invalid}
    assert [codes[f"bad-{n}"] for n in range(len(ROWS))] == [code for _, code in ROWS]
    assert all(len(str(outcome.error)) < 1000 for outcome in made.invalid)
    assert not any("secret" in str(outcome) for outcome in made.invalid)


def test_a_relative_uri_that_climbs_stays_below_the_allowed_roots(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"uri": "../../etc/passwd"},
        {"uri": "a/../b.png"},
        {"uri": "http://10.0.0.1/x.png"},
    ]
    made = plan_of(tmp_path, rows, allowed_roots=[str(tmp_path)])
    assert [item.uri for item in made.todo] == [f"{tmp_path}/b.png"]
    assert {outcome.error_code for outcome in made.invalid} == {"not-allowed"}


def test_doubled_ids_and_keys_fail_for_all_but_the_first(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"uri": "a.png", "id": "x"},
        {"uri": "b.png", "id": "x"},
        {"uri": "a.png", "id": "y"},
    ]
    made = plan_of(tmp_path, rows)
    assert [item.item_id for item in made.todo] == ["x"]
    assert [outcome.error_code for outcome in made.invalid] == ["duplicate-id", "duplicate-output"]


@pytest.mark.parametrize(
    ("values", "code"),
    [
        (np.full((9, 9), np.nan), "bad-kernel"),
        (np.full((9, 9), np.inf), "bad-kernel"),
        (np.ones((5000, 5000), np.float32), "over-limit"),
        (np.zeros((9, 9)), "bad-kernel"),
        (np.ones((3, 3, 3)), "bad-kernel"),
        (np.array([object()]), "bad-kernel"),
        (np.array([["a"]]), "bad-kernel"),
    ],
)
def test_a_hostile_kernel_file_is_a_failed_row(values: Any, code: str, tmp_path: Path) -> None:
    kernel_file(tmp_path, "k.npy", values)
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    item = Item("a", f"{tmp_path}/a.png", "a", 2, 0.0, f"{tmp_path}/k.npy", "center")
    (work,) = read([item], limits=ReadLimits(10**6, 10**9, 512))
    assert work.outcome.error_code == code


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("raise SystemExit('code of a checkpoint was run')",))


@pytest.mark.parametrize(
    "data", [pickle.dumps(Evil(), 2), pickle.dumps({"p.weight": Evil()}, 2), b"PK\x03\x04" + bytes(200)]
)
def test_a_checkpoint_with_code_is_refused_and_not_run(data: bytes) -> None:
    with pytest.raises((WeightsError, ItemError)):
        load_usrnet(io.BytesIO(data), name="evil.pth")
