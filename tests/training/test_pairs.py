"""Training pairs are what the degradation makes of crops of the photographs, and nothing else."""

import numpy as np
import pytest
import torch

from pipeline.physics.degradation import degrade
from pipeline.physics.kernels import parse_kernel
from pipeline.training.pairs import KERNEL_SIZE, Pairs, Photograph, Share, Source, degraded
from pipeline.training.recipe import Degradations, Recipe

PATCH = 48
SCALES = Degradations().scales
SIGMA_MAX = Degradations().sigma_max


def source(photographs: list[Photograph], *, batch: int = 4, patch: int = PATCH, seed: int = 0) -> Source:
    return Source(photographs, Recipe(10, batch=batch, patch=patch, seed=seed))


def pairs_of(photographs: list[Photograph], *, batch: int, scale: int, patch: int = PATCH) -> Pairs:
    return degraded(source(photographs, batch=batch, patch=patch).crops(0, scale))


def photograph(h: int, w: int, seed: int = 0) -> Photograph:
    return np.random.default_rng(seed).integers(0, 256, (h, w, 3), dtype=np.uint8)


def draw(seed: int = 0, *, batch: int = 4, scale: int | None = None) -> Pairs:
    drawn = source([photograph(80, 70), photograph(60, 90, 1)], batch=batch, seed=seed)
    return degraded(drawn[0] if scale is None else drawn.crops(0, scale))


def hwc(image: torch.Tensor) -> np.ndarray:
    return image.permute(1, 2, 0).double().numpy()


@pytest.mark.parametrize("scale", SCALES)
def test_a_pair_is_the_degradation_rounded_to_8_bits_with_white_noise_on_top(scale: int) -> None:
    pairs = draw(scale=scale, batch=16)
    noise = []
    for hr, lr, kernel, sigma in zip(pairs.hr, pairs.lr, pairs.kernel, pairs.sigma, strict=True):
        blurred = degrade(hwc(hr), kernel[0].double().numpy(), scale, 0)
        added = hwc(lr) - np.round(blurred * 255) / 255
        if sigma == 0:
            off = np.abs(added) * 255 > 1e-3  # fp32 may round a value near .5 the other way
            assert off.mean() < 1e-3
        else:
            noise.append(added / float(sigma))
    assert {bool(sigma == 0) for sigma in pairs.sigma} == {True, False}
    together = np.concatenate([n.ravel() for n in noise if np.abs(n).max() < 6])  # but for such a pixel
    assert together.size > 16 * 3 * (PATCH // scale) ** 2 / 2
    assert together.std() == pytest.approx(1, abs=0.04)
    assert abs(together.mean()) < 0.05


@pytest.mark.parametrize("scale", SCALES)
def test_shapes_and_ranges_are_those_the_network_takes(scale: int) -> None:
    pairs = draw(scale=scale)
    assert pairs.scale == scale
    assert pairs.hr.shape == (4, 3, PATCH, PATCH)
    assert pairs.lr.shape == (4, 3, PATCH // scale, PATCH // scale)
    assert pairs.kernel.shape == (4, 1, KERNEL_SIZE, KERNEL_SIZE)
    assert pairs.sigma.shape == (4, 1, 1, 1)
    assert 0 <= pairs.hr.min() < pairs.hr.max() <= 1
    assert {part.dtype for part in (pairs.hr, pairs.lr, pairs.kernel, pairs.sigma)} == {torch.float32}


def test_the_same_seed_draws_the_same_pairs() -> None:
    first, second, other = draw(5), draw(5), draw(6)
    for part in ("hr", "lr", "kernel", "sigma"):
        assert torch.equal(getattr(first, part), getattr(second, part))
    assert first.scale == second.scale
    assert not torch.equal(first.hr, other.hr)


def test_the_next_step_goes_on_rather_than_repeats() -> None:
    drawn = source([photograph(80, 70)], batch=2)
    first, second = (degraded(drawn.crops(step, 2)) for step in range(2))
    assert not torch.equal(first.hr, second.hr)


def test_kernels_noise_and_scales_cover_what_the_network_is_to_learn() -> None:
    many = [draw(seed, batch=8) for seed in range(40)]
    sigma = torch.cat([pairs.sigma for pairs in many]).flatten() * 255
    kernel = torch.cat([pairs.kernel for pairs in many])
    torch.testing.assert_close(kernel.sum(dim=(1, 2, 3)), torch.ones(len(kernel)))
    assert {pairs.scale for pairs in many} == set(SCALES)
    assert 0.06 < (sigma == 0).float().mean() < 0.2
    assert SIGMA_MAX - 1 < sigma.max() <= SIGMA_MAX
    symmetric = (kernel - kernel.flip((-2, -1))).abs().amax(dim=(1, 2, 3)) < 1e-6
    assert 0.35 < symmetric.float().mean() < 0.65  # Gaussian kernels are, motion kernels are not


def test_crops_are_cut_out_of_the_photographs_turned_and_mirrored_in_all_eight_ways() -> None:
    photo = photograph(PATCH, PATCH)
    faces = [np.rot90(side, turn) for side in (photo, photo[:, ::-1]) for turn in range(4)]
    pairs = pairs_of([photo], batch=64, scale=1)
    seen = set()
    for hr in pairs.hr:
        crop = np.rint(hwc(hr) * 255).astype(np.uint8)
        if (crop == crop[:, :, :1]).all():  # one in eight is made gray
            continue
        seen.add(next(n for n, face in enumerate(faces) if np.array_equal(crop, face)))
    assert seen == set(range(8))


def test_one_crop_in_eight_is_gray_with_gray_noise() -> None:
    pairs = pairs_of([photograph(80, 70)], batch=400, scale=2)
    gray_hr, gray_lr = ((x == x[:, :1]).all(dim=3).all(dim=2).all(dim=1) for x in (pairs.hr, pairs.lr))
    assert torch.equal(gray_hr, gray_lr)
    assert 0.08 < gray_hr.float().mean() < 0.18


def test_every_region_has_the_same_chance_whatever_photograph_it_is_in() -> None:
    small, large = np.full((48, 48, 3), 10, np.uint8), np.full((48, 144, 3), 200, np.uint8)
    small[::2], large[::2] = 40, 250
    pairs = pairs_of([small, large], batch=200, scale=1)
    from_large = (pairs.hr.amax(dim=(1, 2, 3)) > 0.5).float().mean()
    assert 0.65 < from_large < 0.85


def test_flat_crops_are_drawn_again() -> None:
    half_sky = photograph(48, 960)
    half_sky[:, :480] = 128
    pairs = pairs_of([half_sky], batch=64, scale=1)
    contrast = pairs.hr.mean(dim=1).flatten(1).std(dim=1) * 255
    assert (contrast < 6).float().mean() < 0.05


def test_a_photograph_that_is_flat_everywhere_does_not_stop_the_training() -> None:
    sky = np.full((60, 60, 3), 128, np.uint8)
    pairs = pairs_of([sky], batch=2, scale=2)
    torch.testing.assert_close(pairs.hr, torch.full_like(pairs.hr, 128 / 255))


def test_a_share_of_the_batch_is_a_part_of_the_whole_batch() -> None:
    photographs, recipe = [photograph(80, 70), photograph(60, 90, 1)], Recipe(10, batch=4, patch=PATCH)
    whole = degraded(Source(photographs, recipe)[3])
    halves = [degraded(Source(photographs, recipe, share=Share(rank, 2))[3]) for rank in range(2)]
    assert {half.scale for half in halves} == {whole.scale}
    for part in ("hr", "lr", "kernel", "sigma"):
        both = torch.cat([getattr(half, part) for half in halves])
        torch.testing.assert_close(both, getattr(whole, part), rtol=0, atol=1e-6)


def test_every_batch_has_one_scale_whatever_process_crops_it() -> None:
    drawn = source([photograph(80, 70)])
    alone = [drawn[step].scale for step in range(len(drawn))]
    loaded = list(torch.utils.data.DataLoader(drawn, batch_size=None, num_workers=2))
    assert [crops.scale for crops in loaded] == alone
    assert len(set(alone)) > 1
    assert all(torch.equal(crops.hr, drawn[step].hr) for step, crops in enumerate(loaded))


def test_half_of_the_kernels_are_the_archives_own_where_it_has_some() -> None:
    recipe = Recipe(1, batch=64, patch=PATCH)
    own = {scale: [parse_kernel("disk(2)", scale, "center"), parse_kernel("gaussian(5)")] for scale in SCALES}
    crops = Source([photograph(80, 70)], recipe, own).crops(0, 2)
    assert crops.kernel.shape[-2:] == (41, 41), "of the widest"
    expected = torch.zeros(41, 41)
    disk = torch.from_numpy(own[2][0]).float()
    start = 20 - disk.shape[0] // 2
    expected[start : start + disk.shape[0], start : start + disk.shape[1]] = disk
    share = [bool(torch.allclose(kernel[0], expected)) for kernel in crops.kernel]
    assert 0.1 < np.mean(share) < 0.45, "a quarter: one of two kernels, half of the time"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"patch": 72}, "smaller than the patch"),
        ({"degradations": Degradations(scales=(5,))}, "no multiple"),
        ({"kernels": {2: [np.ones((49, 3)) / 147]}}, "49 pixels wide"),
        ({"share": Share(0, 3)}, "3 workers"),
        ({"photographs": []}, "no photograph"),
    ],
)
def test_what_cannot_be_drawn_is_refused_at_once(change: dict[str, object], complaint: str) -> None:
    recipe = {"patch": PATCH, "degradations": Degradations()} | change
    with pytest.raises(ValueError, match=complaint):
        Source(
            recipe.pop("photographs", [photograph(60, 90)]),
            kernels=recipe.pop("kernels", None),
            share=recipe.pop("share", Share()),
            recipe=Recipe(1, batch=4, **recipe),
        )
