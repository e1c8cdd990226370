"""The costs of file formats add up as they say: seconds over megapixels of the result."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.bench import formats
from pipeline.data import headers, images
from pipeline.errors import ItemError
from pipeline.model.restore import Restorer
from pipeline.model.usrnet import Architecture
from pipeline.records import Picture
from pipeline.training.loop import initial_usrnet

SMALL = Architecture(iterations=1, hidden=4, widths=(4, 4, 4, 4), blocks=1)
PIXELS = np.random.default_rng(0).integers(0, 65536, (20, 24, 3), np.uint16)


@pytest.fixture(scope="module")
def restorer() -> Restorer:
    return Restorer(initial_usrnet(SMALL, seed=0))


def test_an_archive_of_each_format_passes_the_stages_and_every_second_is_counted(
    restorer: Restorer, tmp_path: Path
) -> None:
    ticks = itertools.count()
    costs = list(formats.stage_costs(str(tmp_path), restorer, [PIXELS, PIXELS], clock=lambda: next(ticks)))
    assert [(cost.format, cost.bits) for cost in costs] == list(formats.ARCHIVES)
    assert [cost.written for cost in costs] == ["png", "png", "tif", "tif", "jpg", "webp", "avif", "png"]
    megapixels = 2 * 4 * 20 * 24 / 1e6
    for cost in costs:
        found = (cost.read * megapixels, cost.restore * megapixels, cost.write * megapixels)
        assert found == pytest.approx((2, 1, 2)), "a tick for each item read, for the unit, for each item written"
        names = {f"{number}.{'jp2' if cost.format == 'jp2' else cost.written}" for number in (0, 1)}
        folder = tmp_path / f"{cost.format}-{cost.bits}"
        assert {path.name for path in folder.iterdir() if path.is_file()} == names
        stored = (folder / min(names)).read_bytes()
        assert headers.format_of(stored) == cost.format
        assert headers.bits_per_sample(stored, cost.format, 0) == cost.bits


def test_a_failed_item_is_no_cost(tmp_path: Path) -> None:
    net = initial_usrnet(SMALL, seed=0)
    with torch.no_grad():
        next(net.parameters()).fill_(float("nan"))
    with pytest.raises(ItemError) as raised:
        list(formats.stage_costs(str(tmp_path), Restorer(net), [PIXELS]))
    assert raised.value.code == "bad-result"


def test_every_way_to_write_is_measured_in_each_depth_that_it_holds() -> None:
    picture = Picture(PIXELS, mode="RGB", format="tiff", bits=16)
    costs = {(cost.name, cost.bits): cost for cost in formats.codec_costs(picture)}
    assert {name for name, _ in costs} == set(formats.WAYS)
    assert {bits for name, bits in costs if name.startswith("TIFF")} == {8, 16, 32}
    assert {bits for name, bits in costs if name.startswith("JPEG")} == {8}
    written = len(images.encode(picture, "tiff", images.Options(tiff_compression="none")))
    assert costs["TIFF, none", 16].megabytes == pytest.approx(written / PIXELS[:, :, 0].size)
    assert all(cost.encode > 0 < cost.decode for cost in costs.values())
