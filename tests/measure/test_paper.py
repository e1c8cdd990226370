"""The authors' protocol, against the figures their code gave with their weights on Set5."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.measure.metrics import psnr
from pipeline.measure.paper import (
    degrade_as_in_table1,
    degrade_as_in_table2,
    restore_lr,
    table1_cell,
    table1_scores,
    table2_scores,
)
from pipeline.model.checkpoint import load_usrnet
from pipeline.model.usrnet import Architecture, USRNet
from pipeline.physics.degradation import degrade
from pipeline.physics.kernels import parse_kernel
from pipeline.physics.resample import upscale_bicubic
from pipeline.training.loop import initial_usrnet

SMALL = Architecture(iterations=2, hidden=8, widths=(8, 8, 8, 8), blocks=1)
PUBLISHED_DB = 0.015  # the reference figures are rounded to 0.01 dB


@pytest.fixture(scope="module")
def kernels(reference: Path) -> np.ndarray:
    return np.asarray(np.load(reference / "paper_kernels.npz")["table1"])


@pytest.fixture(scope="module")
def net(reference: Path) -> USRNet:
    return load_usrnet(reference / "usrnet_tiny.pth")


def read(file: Path) -> np.ndarray:
    return np.asarray(Image.open(file).convert("RGB"))


def smooth_picture(h: int, w: int) -> np.ndarray:
    y, x = np.mgrid[:h, :w]
    waves = [np.sin(x / 5 + c) + np.cos(y / 7 - x / 11 * c) for c in range(3)]
    return np.rint(127.5 + 60 * np.stack(waves, axis=2)).clip(0, 255).astype(np.uint8)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("scale", [2, 3])
@pytest.mark.parametrize("number", range(1, 13))
def test_set5_by_the_authors_protocol_gives_the_authors_figures(
    reference: Path, net: USRNet, kernels: np.ndarray, scale: int, number: int
) -> None:
    published = json.loads((reference / "set5_psnr_usrnet_tiny.json").read_text())["psnr_db"]
    hr_images = [read(file) for file in sorted((reference / "set5").glob("*.png"))]
    measured = table1_cell(net, hr_images, kernels[number - 1], scale)
    print(f"x{scale} kernel {number}: {measured:.4f} dB, published {published[f'x{scale}'][number - 1]}")
    assert measured == pytest.approx(published[f"x{scale}"][number - 1], abs=PUBLISHED_DB)


def test_one_cell_on_one_picture_is_as_recorded_and_far_beyond_bicubic(
    reference: Path, net: USRNet, kernels: np.ndarray
) -> None:
    butterfly = [read(reference / "set5" / "butterfly.png")]
    restored, enlarged = table1_cell(net, butterfly, kernels[2], 3), table1_cell(None, butterfly, kernels[2], 3)
    assert restored == pytest.approx(29.456, abs=0.015)  # recorded when the slow test above passed
    assert restored > enlarged + 5


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_the_papers_degradation_is_ours_but_for_the_truncation(scale: int) -> None:
    """Whole grey levels, rounded down: at most one level below the exact blur."""
    hr, kernel = smooth_picture(24, 48), parse_kernel("gaussian(1.6, 0.8, 30)")
    lost = degrade(hr / 255, kernel, scale, 0) - degrade_as_in_table1(hr, kernel, scale)
    assert lost.min() * 255 > -1e-3
    assert 0.3 < lost.max() * 255 < 1 + 1e-3


def test_noise_is_added_after_truncation_and_not_rounded() -> None:
    hr, kernel = smooth_picture(48, 48), parse_kernel("gaussian(1.2)")
    clean, noisy = (degrade_as_in_table1(hr, kernel, 2, sigma) for sigma in (0.0, 7.65))
    noise = (noisy - clean) * 255
    assert noise.std() == pytest.approx(7.65, rel=0.05)
    assert not np.allclose(noisy * 255, np.round(noisy * 255), atol=1e-3)
    np.testing.assert_array_equal(noisy, degrade_as_in_table1(hr, kernel, 2, 7.65))


def test_the_noise_is_the_authors_for_the_authors_seed() -> None:
    """`np.random.seed(0)` draws 1.764052... first."""
    hr = np.full((8, 8, 3), 100, np.uint8)
    noisy = degrade_as_in_table1(hr, np.ones((1, 1)), 1, 2.55, seed=0)
    assert noisy[0, 0, 0] * 255 == pytest.approx(100 + 2.55 * 1.764052345967664, abs=1e-4)


def test_a_cell_is_the_mean_over_its_pictures() -> None:
    pictures, kernel = [smooth_picture(48, 56), smooth_picture(64, 40)[::-1]], parse_kernel("gaussian(1.2)")
    each = [table1_cell(None, [picture], kernel, 2) for picture in pictures]
    assert table1_cell(None, pictures, kernel, 2) == pytest.approx(np.mean(each))


def test_pictures_are_cropped_to_what_scale_and_network_divide() -> None:
    """At x3 to multiples of 24."""
    kernel, picture = parse_kernel("gaussian(1.2)"), smooth_picture(59, 71)
    assert table1_cell(None, [picture], kernel, 3) == table1_cell(None, [picture[:48, :48]], kernel, 3)


def test_bicubic_is_measured_on_the_grid_that_decimation_keeps() -> None:
    hr, kernel = smooth_picture(48, 48), np.ones((1, 1))
    lr = degrade_as_in_table1(hr, kernel, 2)
    shifted = np.round(upscale_bicubic(lr, 2, "center").clip(0, 1) * 255)
    assert table1_cell(None, [hr], kernel, 2) > psnr(shifted, hr, border=4) + 10


def test_the_network_is_told_the_kernel_and_the_noise_of_the_degradation() -> None:
    net = initial_usrnet(SMALL, seed=0).eval()
    hr, blur, sharp = smooth_picture(48, 48), parse_kernel("gaussian(2.0)"), np.ones((1, 1))
    lr = degrade_as_in_table1(hr, blur, 2, 5.0)
    told, misled = (np.round(restore_lr(net, lr, k, 2, 5.0).clip(0, 1) * 255) for k in (blur, sharp))
    assert table1_cell(net, [hr], blur, 2, sigma_255=5.0) == psnr(told, hr, border=4)
    assert psnr(told, hr) > psnr(misled, hr) + 1


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_table_2_shrinks_as_antialiased_bicubic_does(scale: int) -> None:
    """Pillow's, inside; at the edges it repeats nothing and MATLAB mirrors."""
    hr = smooth_picture(12 * scale, 14 * scale)
    shrunk = degrade_as_in_table2(hr, scale)
    for c in range(3):
        oracle = Image.fromarray(np.float32(hr[:, :, c] / 255)).resize((14, 12), Image.Resampling.BICUBIC)
        np.testing.assert_allclose(shrunk[3:-3, 3:-3, c], np.asarray(oracle)[3:-3, 3:-3], atol=1e-6)


def test_table_2_leaves_a_constant_picture_constant() -> None:
    hr = np.full((30, 36, 3), 77, np.uint8)
    np.testing.assert_allclose(degrade_as_in_table2(hr, 3), 77 / 255, atol=1e-6)
    assert table2_scores(None, hr, 3).psnr_y_db == np.inf


def test_y_and_ssim_stand_beside_rgb() -> None:
    hr = smooth_picture(48, 48)
    scores = table1_scores(None, hr, np.ones((1, 1)), 2, sigma_255=10.0)
    assert scores.psnr_rgb_db == table1_cell(None, [hr], np.ones((1, 1)), 2, 10.0)
    assert scores.psnr_y_db > scores.psnr_rgb_db, "noise of three channels averages out in Y"
    assert 0 < scores.ssim_y < 1


def test_the_official_tiny_weights_beat_bicubic_on_bicubic_degradation(reference: Path, net: USRNet) -> None:
    butterfly = read(reference / "set5" / "butterfly.png")[:120, :120]
    restored, enlarged = table2_scores(net, butterfly, 3), table2_scores(None, butterfly, 3)
    assert restored.psnr_y_db > enlarged.psnr_y_db + 2
    assert restored.ssim_y > enlarged.ssim_y


@pytest.mark.parametrize("shape", [(50, 61), (49, 48)])
@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_table_2_takes_any_size(scale: int, shape: tuple[int, int]) -> None:
    scores = table2_scores(initial_usrnet(SMALL, seed=0).eval(), smooth_picture(*shape), scale)
    assert np.isfinite([scores.psnr_rgb_db, scores.psnr_y_db, scores.ssim_y]).all()
