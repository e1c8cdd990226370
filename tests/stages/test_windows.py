"""Images without limit, from storage to storage, with a network that only repeats pixels."""

import hashlib
import inspect
import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pyvips
import tifffile
from PIL import Image

from pipeline.data import images, storage
from pipeline.data.windows import open_windows
from pipeline.errors import ItemError
from pipeline.measure.metrics import psnr
from pipeline.model.restore import Account, Restored, Restorer
from pipeline.model.usrnet import Architecture
from pipeline.physics.kernels import parse_kernel
from pipeline.records import Degradation, Item, Outcome
from pipeline.stages.read import ReadLimits
from pipeline.stages.windows import Place, restore_windows, tried
from pipeline.stages.write import Encoding
from pipeline.training.loop import initial_usrnet

LIMITS = ReadLimits(lr_pixels=10**7, bytes=10**8, kernel=64)
NOW = datetime(2026, 1, 2, tzinfo=UTC)


class Repeating:
    """In place of the network: each pixel becomes a block, in windows of an odd size."""

    def windows(
        self, source: Any, degradation: Degradation, tell: Callable[[Account], None]
    ) -> Iterator[tuple[int, int, Any]]:
        s, (height, width) = degradation.scale, source.shape[:2]
        for y in range(0, height, 75):
            for x in range(0, width, 131):
                piece = source.read(y, min(y + 75, height), x, min(x + 131, width))
                yield y * s, x * s, piece.repeat(s, 0).repeat(s, 1)
        tell(Account(3.0, "fp32", "none", 7))


class Failing(Repeating):
    def windows(
        self, source: Any, degradation: Degradation, tell: Callable[[Account], None]
    ) -> Iterator[tuple[int, int, Any]]:
        yield next(super().windows(source, degradation, tell))
        raise ItemError("bad-result", "not finite")


def item(uri: str, **more: Any) -> Item:
    return replace(Item(uri, uri, "x/a.tif", 4, 0.0, "delta", "center"), **more)


def run(
    given: Item, output: str, restorer: Any = None, limits: ReadLimits = LIMITS, scratch: str | None = None
) -> Outcome:
    (work,) = restore_windows(
        [given], restorer=restorer or Repeating(), model_id="m", limits=limits, encoding=Encoding("png"),
        place=Place(output, scratch), software="unfold 1", now=lambda: NOW,
    )  # fmt: skip
    return work.outcome


def scan(channels: int = 3, dtype: Any = np.uint16) -> np.ndarray:
    y, x, c = np.ogrid[:310, :420, :channels]
    return np.squeeze(np.asarray((x * 150 + y * 90 + c * 9000) % np.iinfo(dtype).max, dtype))


def stored(array: np.ndarray, **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, array, **options)
    return file.getvalue()


def test_a_scan_goes_from_s3_to_s3_with_its_depth_and_metadata(s3_prefix: str, tmp_path: Path) -> None:
    lr, uri = scan(), f"{s3_prefix}/a.tif"
    data = stored(
        lr, photometric="rgb", tile=(64, 64), compression="zstd", iccprofile=b"profile", resolution=(300, 300)
    )
    storage.write_bytes(uri, data)
    outcome = run(item(uri, size=len(data), width=420, height=310), f"{s3_prefix}/out", scratch=str(tmp_path))
    assert (outcome.status, outcome.error) == ("done", None)
    result = storage.read_bytes(str(outcome.sr_uri))
    assert str(outcome.sr_uri) == f"{s3_prefix}/out/images/x/a.tif"
    assert (outcome.output_bytes, outcome.output_sha256) == (len(result), hashlib.sha256(result).hexdigest())
    assert (outcome.sr_width, outcome.sr_height, outcome.bits, outcome.input_bytes) == (1680, 1240, 16, len(data))
    assert (outcome.model_id, outcome.written_at) == ("m", NOW)
    assert (outcome.precision, outcome.backend, outcome.tiles) == ("fp32", "none", 7)
    assert (outcome.consistency_rms_255, outcome.consistency_flagged) == (3.0, True), "sigma is 0"
    with tifffile.TiffFile(io.BytesIO(result)) as file:
        np.testing.assert_array_equal(file.asarray(), lr.repeat(4, 0).repeat(4, 1))
        assert file.pages[0].is_tiled  # type: ignore[union-attr]
    picture = images.decode(result, max_pixels=10**7)
    assert picture.icc == b"profile"
    assert picture.dpi == pytest.approx((1200, 1200))
    assert b'unfold:scale="4"' in (picture.xmp or b"")
    assert not list(tmp_path.iterdir()), "scratch is left clean"


@pytest.mark.parametrize("channels", [1, 4])
def test_gray_stays_gray_and_alpha_is_rejoined(channels: int, tmp_path: Path) -> None:
    extra = {"extrasamples": ["unassalpha"], "photometric": "rgb"} if channels == 4 else {}
    (tmp_path / "a.tif").write_bytes(stored(scan(channels, np.uint8), **extra))
    outcome = run(item(str(tmp_path / "a.tif")), str(tmp_path / "out"))
    assert outcome.error is None
    picture = images.decode(Path(str(outcome.sr_uri)).read_bytes(), max_pixels=10**7)
    assert picture.pixels_hwc.shape == (1240, 1680, 1 if channels == 1 else 3)
    assert (picture.alpha_hw is not None) == (channels == 4)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_the_middle_is_tried_as_the_whole_would_be_and_nothing_is_kept(channels: int, tmp_path: Path) -> None:
    """Orientation 8: upright it is 310 wide and 420 high."""
    extra = {"photometric": "rgb"} | ({"extrasamples": ["unassalpha"]} if channels == 4 else {})
    data = stored(scan(channels), tile=(64, 64), extratags=[(274, 3, 1, 8, True)], **(extra if channels > 1 else {}))
    (tmp_path / "a.tif").write_bytes(data)
    seen: list[np.ndarray] = []

    class Seeing(Repeating):
        def windows(self, source: Any, *rest: Any) -> Iterator[tuple[int, int, Any]]:
            seen.append(source.read(0, *source.shape[:1], 0, source.shape[1]))
            yield from super().windows(source, *rest)

    times = iter([0.0, 10.0, 12.0])
    trial = tried(
        item(str(tmp_path / "a.tif"), width=310, height=420), hr_pixels=16 * 100 * 101, restorer=Seeing(),
        limits=LIMITS, encoding=Encoding("png"), scratch=str(tmp_path), clock=times.__next__,
    )  # fmt: skip
    whole = images.decode(data, max_pixels=10**7).pixels_hwc
    assert whole.shape == (420, 310, min(channels, 3))
    if channels != 4:  # hidden colours are filled in by what is near, so there a part differs
        np.testing.assert_array_equal(seen[0].reshape(100, 101, -1), whole[160:260, 104:205])
    assert trial.pixels == 100 * 101
    share = trial.pixels / (420 * 310)
    assert trial.seconds == pytest.approx(10 * share + 2)
    assert trial.bytes_in == pytest.approx(len(data) * share)
    assert trial.pixel_bytes == 2 * channels
    assert 1000 < trial.bytes_out < 16 * trial.pixels * trial.pixel_bytes
    assert [path.name for path in tmp_path.iterdir()] == ["a.tif"]


def test_a_png_is_decoded_whole_and_becomes_a_tiff(tmp_path: Path) -> None:
    Image.fromarray(scan(3, np.uint8)).save(tmp_path / "a.png")
    outcome = run(item(str(tmp_path / "a.png"), key="a.png"), str(tmp_path / "out"))
    assert str(outcome.sr_uri).endswith("/images/a.png.tif")


@pytest.mark.parametrize(
    ("change", "limits", "code"),
    [
        ({"uri": "/nowhere/a.tif"}, {}, "input-missing"),
        ({"size": 5}, {}, "input-changed"),
        ({"etag": "another"}, {}, "input-changed"),
        ({"width": 5, "height": 5}, {}, "input-changed"),
        ({"page": 3}, {}, "bad-page"),
        ({}, {"bytes": 10}, "over-limit"),
        ({}, {"lr_pixels": 10}, "over-limit"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, change: Any, limits: Any, code: str) -> None:
    (tmp_path / "a.tif").write_bytes(stored(scan(), photometric="rgb"))
    given = replace(item(str(tmp_path / "a.tif")), **change)
    outcome = run(given, str(tmp_path / "out"), limits=replace(LIMITS, **limits))
    assert outcome.error_code == code, outcome.error


def test_a_failure_half_way_leaves_no_object_and_no_scratch(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(stored(scan(), photometric="rgb"))
    (tmp_path / "scratch").mkdir()
    outcome = run(item(str(tmp_path / "a.tif")), str(tmp_path / "out"), Failing(), scratch=str(tmp_path / "scratch"))
    assert outcome.error_code == "bad-result"
    assert not (tmp_path / "out").exists()
    assert not list((tmp_path / "scratch").iterdir())


def test_no_room_on_the_disk_is_told_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.tif").write_bytes(stored(scan(), photometric="rgb"))
    usage = type("Usage", (), {"free": 10**6})
    monkeypatch.setattr("pipeline.stages.windows.shutil.disk_usage", lambda folder: usage)
    outcome = run(item(str(tmp_path / "a.tif")), str(tmp_path / "out"))
    assert outcome.error_code == "out-of-scratch"
    assert "restore.scratch" in (outcome.error or "")


def test_an_image_replaced_while_it_is_fetched_is_not_mixed_up(
    s3_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, fetch = f"{s3_prefix}/a.tif", storage.download
    storage.write_bytes(uri, stored(scan(), photometric="rgb"))

    def fetch_and_replace(uri: str, path: str) -> None:
        fetch(uri, path)
        storage.write_bytes(uri, stored(scan()[::-1], photometric="rgb"))

    monkeypatch.setattr(storage, "download", fetch_and_replace)
    outcome = run(item(uri), str(tmp_path / "out"))
    assert outcome.error_code == "input-changed"
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(storage, "download", fetch)
    assert run(item(uri), str(tmp_path / "out")).status == "done"


def test_the_networks_windows_show_no_seams_in_the_file(tmp_path: Path) -> None:
    net = initial_usrnet(Architecture(2, 8, (8, 8, 8, 8), 1), 0)
    y, x, c = np.ogrid[:230, :310, :3]
    lr = np.rint(30000 + 25000 * np.sin(x / 5 + c) * np.cos(y / 4)).astype(np.uint16)
    (tmp_path / "a.tif").write_bytes(stored(lr, photometric="rgb", tile=(64, 64)))
    restorer = Restorer(net, precision="fp32", memory=1)
    assert restorer.most_pixels < lr[:, :, 0].size * 4, "so it takes several windows"
    outcome = run(item(str(tmp_path / "a.tif"), scale=2, kernel="gaussian(1.2)"), str(tmp_path / "out"), restorer)
    assert outcome.error is None
    degradation = Degradation(parse_kernel("gaussian(1.2)", 2, "center"), 2, 0.0)
    (whole,) = Restorer(net, precision="fp32").batch([lr], [degradation])
    assert isinstance(whole, Restored)
    result = tifffile.imread(str(outcome.sr_uri))
    assert psnr(result, whole.image, peak=65535) > 60


GIGAPIXEL = """
import resource, sys
from pathlib import Path
from typing import Any
from pipeline.data import storage
from pipeline.records import Item
from pipeline.stages.read import ReadLimits
from pipeline.stages.windows import Place, restore_windows
from pipeline.stages.write import Encoding
from pipeline.records import Degradation
from collections.abc import Callable, Iterator
from pipeline.model.restore import Account

# the network

imported = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 2**20
uri, output, scratch, network = sys.argv[1:5]
restorer = Repeating()
if network == "packaged":
    from pipeline.model.checkpoint import load_usrnet
    from pipeline.model.restore import Restorer
    restorer = Restorer(load_usrnet())
    imported = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 2**20
item = Item("a", uri, "a.tif", 4, 0.0, "delta", "center")
(work,) = restore_windows([item], restorer=restorer, model_id="m", limits=ReadLimits(2**30, 2**34, 64),
                          encoding=Encoding("png"), place=Place(output, scratch))
print(work.outcome.status, work.outcome.error, work.outcome.output_bytes, work.outcome.seconds_restore)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 2**10 - imported)
"""


@pytest.mark.slow
def test_a_gigapixel_goes_from_s3_to_s3_in_bounded_memory(s3_prefix: str, tmp_path: Path) -> None:
    """With the packaged network, which takes long: UNFOLD_SIDE=2500 UNFOLD_NETWORK=packaged, 100 megapixels."""
    side, network = int(os.environ.get("UNFOLD_SIDE", "8000")), os.environ.get("UNFOLD_NETWORK", "")
    tile = 256
    y, x = np.ogrid[:tile, :tile]

    def tiles() -> Iterator[np.ndarray]:
        noise = np.random.default_rng(0).integers(0, 8, (tile, tile, 3))
        for number in range((-(-side // tile)) ** 2):
            smooth = np.stack([x + y + number, x - y + 2 * number, x * 0 + y - number], -1)
            yield (smooth + np.roll(noise, number, (0, 1))).astype(np.uint8)

    with tifffile.TiffWriter(tmp_path / "lr.tif") as writer:
        shape = (side, side, 3)
        writer.write(tiles(), shape=shape, dtype=np.uint8, tile=(tile, tile), photometric="rgb", compression="zlib")
    storage.upload(str(tmp_path / "lr.tif"), f"{s3_prefix}/a.tif")
    (tmp_path / "scratch").mkdir()
    arguments = [f"{s3_prefix}/a.tif", f"{s3_prefix}/out", str(tmp_path / "scratch"), network]
    script = GIGAPIXEL.replace("# the network", inspect.getsource(Repeating))
    command = [sys.executable, "-c", script, *arguments]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    status, megabytes = shown.stdout.strip().splitlines()
    print(status, megabytes, "MB above the imports")
    assert status.startswith("done None")
    assert int(megabytes) < 2048
    storage.download(f"{s3_prefix}/out/images/a.tif", str(tmp_path / "sr.tif"))
    result = pyvips.Image.new_from_file(str(tmp_path / "sr.tif"), access="random")
    assert (result.width, result.height, result.bands) == (4 * side, 4 * side, 3)
    with open_windows(tmp_path / "lr.tif", tmp_path, max_pixels=2**30) as source:
        for top, left in ((0, 0), (2 * side - 500, 2 * side - 123), (4 * side - 1000, 4 * side - 1000)):
            window = result.crop(left, top, 900, 900).numpy()
            y0, x0 = top // 4, left // 4
            expected = source.read(y0, y0 + 230, x0, min(x0 + 230, side)).repeat(4, 0).repeat(4, 1)
            expected = expected[top % 4 :, left % 4 :][: window.shape[0], : window.shape[1]]
            if not network:
                np.testing.assert_array_equal(window, expected)
