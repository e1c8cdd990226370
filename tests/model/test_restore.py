"""The Restorer: any mixture of images, one answer each."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.errors import ItemError
from pipeline.measure.metrics import psnr
from pipeline.model import backend, onednn
from pipeline.model import restore as restoring
from pipeline.model.backend import Denoiser, best_precision
from pipeline.model.checkpoint import load_usrnet
from pipeline.model.restore import Account, Restored, Restorer, restore
from pipeline.model.runner import Runner, Window, _is_picture, _Launched
from pipeline.model.transfer import Transfer
from pipeline.model.usrnet import TINY, Architecture, USRNet
from pipeline.physics.data_step import Observation
from pipeline.physics.degradation import degrade
from pipeline.physics.kernels import parse_kernel
from pipeline.records import Degradation
from pipeline.training.loop import initial_usrnet

SMALL = Architecture(iterations=4, hidden=8, widths=(8, 8, 8, 8), blocks=1)


@pytest.fixture(scope="module")
def net() -> USRNet:
    """Untrained, but a deconvolution already: its prior is the identity."""
    return initial_usrnet(SMALL, seed=0)


def smooth_picture(h: int, w: int, seed: int = 0) -> np.ndarray:
    """(h, w, 3) float in [0, 1], smooth and not periodic."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:h, :w] / 40
    waves = [np.sin(x * a + y * b + c) for a, b, c in rng.uniform(0.5, 3, (3, 3))]
    return np.stack(waves, axis=2) * 0.4 + 0.5


def pair(h: int, w: int, scale: int, kernel: str = "gaussian(1.2)", seed: int = 0) -> tuple[np.ndarray, Degradation]:
    degradation = Degradation(parse_kernel(kernel, scale), scale, 0)
    lr = degrade(smooth_picture(h * scale, w * scale, seed), degradation.kernel, scale, 0, boundary="reflect")
    return np.rint(lr.clip(0, 1) * 255).astype(np.uint8), degradation


def images_of(results: list[Restored | ItemError]) -> list[np.ndarray]:
    return [result.image for result in results if isinstance(result, Restored)]


def test_a_mixture_gives_what_each_gives_alone(net: USRNet) -> None:
    cases = [pair(20, 31, 2), pair(33, 17, 3, "disk(2)"), pair(20, 31, 2, "motion(9, 30)", 1), pair(24, 24, 1)]
    restorer = Restorer(net, precision="fp32")
    together = images_of(restorer.batch(*map(list, zip(*cases, strict=True))))
    assert len(together) == 4
    for (image, degradation), result in zip(cases, together, strict=True):
        (alone,) = images_of(restorer.batch([image], [degradation]))
        assert result.shape == (image.shape[0] * degradation.scale, image.shape[1] * degradation.scale, 3)
        assert np.abs(result.astype(int) - alone).max() <= 1


def test_kernels_as_wide_as_the_limit_allows(net: USRNet) -> None:
    image, _ = pair(40, 40, 2)
    wide = np.zeros((300, 512))
    wide[150, 256] = 1
    (result,) = restore(net, [image], [Degradation(wide, 2, 0)], precision="fp32")
    (small,) = restore(net, [image], [Degradation(np.ones((1, 1)), 2, 0)], precision="fp32")
    assert nearly_equal(result, small)


def test_the_dtype_and_the_gray_of_the_input_are_kept(net: USRNet) -> None:
    image, degradation = pair(16, 16, 2)
    for sample in (image, image.astype(np.uint16) * 257, image[:, :, 0], image[:, :, 0].astype(np.uint16) * 257):
        (result,) = restore(net, [sample], [degradation])
        assert result.dtype == sample.dtype
        assert result.shape == (32, 32, *sample.shape[2:])


def test_sixteen_bits_and_eight_give_the_same_picture(net: USRNet) -> None:
    image, degradation = pair(16, 20, 2)
    eight, sixteen = restore(net, [image, image.astype(np.uint16) * 257], [degradation] * 2, precision="fp32")
    assert np.abs(sixteen / 257 - eight).max() <= 0.51


def test_the_smooth_extension_restores_the_border_of_a_real_image(net: USRNet) -> None:
    image, degradation = pair(40, 50, 2, "gaussian(1.6)")
    truth = smooth_picture(80, 100)
    frame = np.ones((80, 100), bool)
    frame[8:-8, 8:-8] = False
    errors = {}
    for boundary in ("smooth", "circular"):
        (result,) = restore(net, [image], [degradation], boundary, precision="fp32")
        errors[boundary] = np.abs(result / 255 - truth)[frame].mean()
    assert errors["smooth"] < 0.5 * errors["circular"]


def test_consistency_is_near_zero_for_the_right_kernel_and_large_for_a_wrong_one(net: USRNet) -> None:
    image, degradation = pair(40, 40, 2, "gaussian(1.2)")
    texture = np.random.default_rng(0).integers(0, 255, image.shape, dtype=np.uint8)
    wide = Degradation(parse_kernel("gaussian(6)"), 2, 0)
    right, wrong = Restorer(net, precision="fp32").batch([image, texture], [degradation, wide])
    assert isinstance(right, Restored)
    assert isinstance(wrong, Restored)
    assert right.consistency_rms_255 < 1
    assert wrong.consistency_rms_255 > 5


def test_one_bad_image_costs_its_neighbours_nothing(net: USRNet) -> None:
    good, degradation = pair(16, 16, 2)
    bad = [np.zeros((4, 4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8), np.zeros((4, 4, 3), np.float64)]
    results = Restorer(net).batch([good, *bad, good], [degradation] * 5)
    codes = [r.code if isinstance(r, ItemError) else "done" for r in results]
    assert codes == ["done", "unsupported-mode", "corrupt-image", "unsupported-mode", "done"]


def test_restore_raises_the_first_failure_naming_its_place(net: USRNet) -> None:
    good, degradation = pair(16, 16, 2)
    with pytest.raises(ItemError, match=r"images\[1\].*float64"):
        restore(net, [good, good.astype(np.float64)], [degradation] * 2)  # type: ignore[list-item]


def test_a_result_that_is_not_finite_is_refused_after_a_second_look_in_fp32() -> None:
    net = initial_usrnet(SMALL, seed=0)
    net.p.m_tail.weight.data[0] = float("nan")
    image, degradation = pair(16, 16, 2)
    for precision in ("fp32", "bf16"):
        (result,) = Restorer(net, precision=precision).batch([image], [degradation])
        assert isinstance(result, ItemError)
        assert result.code == "bad-result"


def test_the_authors_own_results_are_pictures(reference: Path) -> None:
    with np.load(reference / "usrnet_tiny_golden.npz") as golden:
        results = [torch.from_numpy(golden[name]) for name in golden.files if name.endswith("/sr")]
    assert max(float(sr.max()) for sr in results) > 5
    assert all(_is_picture(sr) for sr in results)


@pytest.mark.parametrize("factor", [30.0, -30.0])
def test_a_finite_result_far_beyond_black_and_white_is_no_picture_either(factor: float) -> None:
    net = initial_usrnet(SMALL, seed=0)
    image, degradation = pair(16, 16, 2)
    assert isinstance(Restorer(net).batch([image], [degradation])[0], Restored)
    net.p.m_tail.weight.data *= factor
    (wild,) = Restorer(net).batch([image], [degradation])
    assert isinstance(wild, ItemError)
    assert wild.code == "bad-result"


@pytest.mark.parametrize("factor", [float("inf"), 100.0])
def test_what_is_no_picture_in_half_precision_is_computed_again_in_fp32(
    net: USRNet, monkeypatch: pytest.MonkeyPatch, factor: float
) -> None:
    (wild, degradation), (tame, _) = pair(16, 16, 2), (np.zeros((16, 16, 3), np.uint8), None)
    exact = images_of(Restorer(net, precision="fp32").batch([wild, tame], [degradation] * 2))
    restorer, compute = Restorer(net, precision="bf16"), Denoiser.__call__

    def overflowing(self: Denoiser, z: torch.Tensor, beta: torch.Tensor) -> torch.Tensor:
        return compute(self, z, beta) * (factor if self.dtype == torch.bfloat16 and z.abs().max() > 0.1 else 1)

    monkeypatch.setattr(Denoiser, "__call__", overflowing)
    (result,) = restorer.batch([wild], [degradation])
    assert isinstance(result, Restored)
    assert np.array_equal(result.image, exact[0])
    assert result.precision == "fp32", "what it was computed in, not what was asked for"
    (other,) = restorer.batch([tame], [degradation])
    assert isinstance(other, Restored)
    assert other.precision == "bf16"


def test_out_of_memory_halves_the_batch_and_goes_on(net: USRNet, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [pair(16, 16, 2, seed=n) for n in range(5)]
    expected = images_of(Restorer(net, precision="fp32").batch(*map(list, zip(*cases, strict=True))))
    restorer = with_room_for(monkeypatch, net, lambda windows: len(windows) <= 2)
    results = images_of(restorer.batch(*map(list, zip(*cases, strict=True))))
    assert len(results) == 5
    assert all(np.array_equal(a, b) for a, b in zip(results, expected, strict=True))


def test_out_of_memory_for_a_whole_image_tries_smaller_windows(net: USRNet, monkeypatch: pytest.MonkeyPatch) -> None:
    image, degradation = pair(150, 300, 2)
    restorer = with_room_for(monkeypatch, net, lambda windows: windows[0].lr.shape[1] < 200)
    (result,) = restorer.batch([image], [degradation])
    assert isinstance(result, Restored)
    assert result.tiles > 1
    (whole,) = restore(net, [image], [degradation], precision="fp32")
    assert nearly_equal(result.image, whole)


def test_no_memory_at_all_fails_that_image_alone(net: USRNet, monkeypatch: pytest.MonkeyPatch) -> None:
    restorer = with_room_for(monkeypatch, net, lambda windows: windows[0].lr.shape[0] < 30)
    small, large = pair(16, 16, 2), pair(40, 40, 2)
    first, second = restorer.batch([small[0], large[0]], [small[1], large[1]])
    assert isinstance(first, Restored)
    assert isinstance(second, ItemError)
    assert second.code == "out-of-memory"


def test_memory_that_runs_out_in_the_second_look_in_fp32_halves_that_batch(
    net: USRNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first look finds no picture in any window, the second has room for one window at a time."""
    cases = [pair(16, 16, 2, seed=n) for n in range(3)]
    expected = images_of(Restorer(net, precision="fp32").batch(*map(list, zip(*cases, strict=True))))
    restorer, compute = Restorer(net, precision="bf16"), Denoiser.__call__

    def limited(self: Denoiser, z: torch.Tensor, beta: torch.Tensor) -> torch.Tensor:
        if self.dtype == torch.bfloat16:
            return compute(self, z, beta) * float("nan")
        if len(z) > 1:
            raise RuntimeError("cuFFT error: CUFFT_ALLOC_FAILED")
        return compute(self, z, beta)

    monkeypatch.setattr(Denoiser, "__call__", limited)
    results = restorer.batch(*map(list, zip(*cases, strict=True)))
    assert all(isinstance(result, Restored) and result.precision == "fp32" for result in results)
    assert all(np.array_equal(a, b) for a, b in zip(images_of(results), expected, strict=True))


def test_memory_that_runs_out_for_the_residual_halves_the_batch(net: USRNet, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [pair(16, 16, 2, seed=n) for n in range(3)]
    answers = Runner._answers

    def limited(self: Runner, sr: torch.Tensor, seen: Observation, windows: list[Window]) -> list[torch.Tensor]:
        if len(windows) > 1:
            raise torch.OutOfMemoryError
        return answers(self, sr, seen, windows)

    monkeypatch.setattr(Runner, "_answers", limited)
    results = Restorer(net, precision="fp32").batch(*map(list, zip(*cases, strict=True)))
    assert len(images_of(results)) == 3


def test_an_error_that_is_none_of_memory_is_not_taken_for_it(net: USRNet, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Denoiser, z: torch.Tensor, beta: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(Denoiser, "__call__", broken)
    image, degradation = pair(16, 16, 2)
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        Restorer(net, precision="fp32").batch([image, image], [degradation] * 2)


def test_a_batch_is_launched_before_the_one_before_it_is_waited_for(
    net: USRNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a GPU would stand still while the host looks at results."""
    told: list[str] = []
    begin = Transfer.to_host

    def noted(self: Transfer, computed: list[torch.Tensor]) -> Callable[[], list[torch.Tensor]]:
        number, arrive = sum(word.startswith("launched") for word in told), begin(self, computed)
        told.append(f"launched {number}")
        return lambda: (told.append(f"asked for {number}"), arrive())[1]

    monkeypatch.setattr(Transfer, "to_host", noted)
    cases = [pair(16 * n, 16, 2) for n in (1, 3, 5)]
    assert len(images_of(Restorer(net).batch(*map(list, zip(*cases, strict=True))))) == 3
    assert told == ["launched 0", "launched 1", "asked for 0", "launched 2", "asked for 1", "asked for 2"]


def test_more_than_eight_bits_get_the_memory_that_fp32_takes(net: USRNet) -> None:
    """An image that just fits with 8 bits is cut with 16, as it is in fp32 with either."""
    fast, exact = (Restorer(net, precision=precision, memory=2**26) for precision in ("bf16", "fp32"))
    side = math.isqrt(fast.most_pixels) - 60
    assert exact.most_pixels < side**2
    flat, delta = np.zeros((side, side), np.uint8), Degradation(np.ones((1, 1)), 1, 0)
    tiles = []
    for restorer, image in ((fast, flat), (fast, flat.astype(np.uint16)), (exact, flat)):
        (result,) = restorer.batch([image], [delta])
        assert isinstance(result, Restored)
        tiles.append(result.tiles)
    assert tiles[0] == 1 < tiles[1] == tiles[2]


def test_eight_bits_and_sixteen_share_no_batch(net: USRNet) -> None:
    """Else what an image of 8 bits becomes would depend on its neighbours."""
    image, degradation = pair(16, 16, 2)
    restorer = Restorer(net, precision="bf16")
    (alone,) = images_of(restorer.batch([image], [degradation]))
    _, beside = images_of(restorer.batch([image.astype(np.uint16) * 257, image], [degradation] * 2))
    assert np.array_equal(alone, beside)


def test_a_result_larger_than_the_main_memory_is_refused_before_the_work(net: USRNet) -> None:
    endless = np.lib.stride_tricks.as_strided(np.zeros(3, np.uint8), (10**6, 10**6, 3), (0, 0, 1))
    (result,) = Restorer(net).batch([endless], [Degradation(np.ones((3, 3)), 4, 0)])
    assert isinstance(result, ItemError)
    assert result.code == "out-of-memory"
    assert "4000000×4000000" in str(result)


def with_room_for(monkeypatch: pytest.MonkeyPatch, net: USRNet, fits: Callable[[list[Window]], bool]) -> Restorer:
    """A Restorer whose device runs out of memory for batches that do not fit."""
    launch = Runner._launch

    def limited(self: Runner, windows: list[Window], precision: str) -> _Launched:
        if not fits(windows):
            raise torch.OutOfMemoryError
        return launch(self, windows, precision)

    monkeypatch.setattr(Runner, "_launch", limited)
    return Restorer(net, precision="fp32")


def nearly_equal(a: np.ndarray, b: np.ndarray) -> bool:
    """Within 2 grey levels; 16 in the outermost 8 pixels: a window's margin joins other edges than the image's."""
    error = np.abs(a.astype(int) - b)
    return bool(error[8:-8, 8:-8].max() <= 2 and error.max() <= 16 and error.mean() < 0.3)


class InMemory:
    """An image as `windows` reads it; notes how many pixels were held at once."""

    def __init__(self, image: np.ndarray) -> None:
        self._image = image
        self.shape, self.dtype = image.shape, image.dtype
        self.most = 0

    def read(self, y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
        self.most = max(self.most, (y1 - y0) * (x1 - x0))
        return self._image[y0:y1, x0:x1]


@pytest.mark.parametrize(
    ("h", "w", "scale", "gray"), [(300, 140, 2, False), (90, 400, 3, True), (40, 40, 4, True), (260, 260, 1, False)]
)
def test_windows_from_top_to_bottom_are_the_whole_picture(net: USRNet, h: int, w: int, scale: int, gray: bool) -> None:
    image, degradation = pair(h, w, scale)
    image = image[:, :, 0] if gray else image
    source = InMemory(image)
    restorer = Restorer(net, precision="fp32", memory=1)  # the least there is: 65,536 HR pixels
    rows, accounts, bottom = [], list[Account](), 0
    for y, x, tile in restorer.windows(source, degradation, accounts.append):
        assert (y, x) == (bottom, 0)
        assert tile.dtype == image.dtype
        bottom += len(tile)
        rows.append(tile)
    (whole,) = Restorer(net, precision="fp32").batch([image], [degradation])
    assert isinstance(whole, Restored)
    assert nearly_equal(np.concatenate(rows), whole.image)
    (account,) = accounts
    assert account.consistency_rms_255 == pytest.approx(whole.consistency_rms_255, rel=0.05)
    assert account.precision == "fp32"
    assert account.tiles > 1 or whole.tiles == 1
    assert source.most * scale**2 <= 1.25 * 2**16, "windows below twice their context get no smaller"


@pytest.mark.parametrize("good_tiles", [0, 1, 2])
def test_windows_get_smaller_below_the_last_tile_where_memory_runs_out(
    net: USRNet, monkeypatch: pytest.MonkeyPatch, good_tiles: int
) -> None:
    image, degradation = pair(1300, 150, 2)
    tiles = list[np.ndarray]()
    restorer = with_room_for(monkeypatch, net, lambda windows: windows[0].lr.shape[0] < 200 or len(tiles) < good_tiles)
    restorer.most_pixels = 2**18
    for y, _, tile in restorer.windows(InMemory(image), degradation):
        assert y == sum(map(len, tiles))
        tiles.append(tile)
    assert all(len(tile) > 400 for tile in tiles[:good_tiles])
    assert all(len(tile) < 400 for tile in tiles[good_tiles:])
    monkeypatch.undo()
    (whole,) = images_of(Restorer(net, precision="fp32").batch([image], [degradation]))
    assert nearly_equal(np.concatenate(tiles), whole)


def test_windows_give_up_where_the_smallest_find_no_memory(net: USRNet, monkeypatch: pytest.MonkeyPatch) -> None:
    image, degradation = pair(300, 150, 2)
    restorer = with_room_for(monkeypatch, net, lambda windows: False)
    with pytest.raises(ItemError) as told:
        list(restorer.windows(InMemory(image), degradation))
    assert told.value.code == "out-of-memory"


def test_a_strip_wider_than_the_main_memory_is_refused_with_its_size(
    net: USRNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restoring, "_SURELY_THERE", 0)
    monkeypatch.setattr(restoring, "available_bytes", lambda: 10**7)
    endless = np.lib.stride_tricks.as_strided(np.zeros(3, np.uint8), (300, 10**6, 3), (0, 0, 1))
    with pytest.raises(ItemError, match=r"a strip of 2000000×\d+ pixels") as told:
        next(Restorer(net).windows(InMemory(endless), Degradation(np.ones((3, 3)), 2, 0)))
    assert told.value.code == "out-of-memory"


def test_tiles_batched_with_other_images_give_what_the_whole_image_gives(net: USRNet) -> None:
    cases = [pair(180, 300, 2), pair(33, 17, 3, "disk(2)"), pair(400, 90, 2, "motion(9, 30)", 1), pair(24, 24, 1)]
    tiled = Restorer(net, precision="fp32", memory=1).batch(*map(list, zip(*cases, strict=True)))
    whole = Restorer(net, precision="fp32").batch(*map(list, zip(*cases, strict=True)))
    assert [r.tiles > 1 for r in tiled if isinstance(r, Restored)] == [True, False, True, False]
    for a, b in zip(tiled, whole, strict=True):
        assert isinstance(a, Restored)
        assert isinstance(b, Restored)
        assert nearly_equal(a.image, b.image)
        assert a.consistency_rms_255 == pytest.approx(b.consistency_rms_255, rel=0.05)


def test_precision_and_code_are_told(net: USRNet) -> None:
    image, degradation = pair(16, 16, 2)
    for compile, code in (("auto", "onednn"), ("off", "eager")):
        (result,) = Restorer(net, precision="bf16", compile=compile).batch([image], [degradation])
        assert isinstance(result, Restored)
        assert (result.precision, result.backend) == ("bf16", code)


def compiled_denoiser(monkeypatch: pytest.MonkeyPatch, net: USRNet, outcome: Callable[..., torch.Tensor]) -> Denoiser:
    """One whose torch.compile gives `outcome`."""
    monkeypatch.setattr(torch, "compile", lambda function, **_: outcome)
    return Denoiser(net.p, torch.device("cpu"), "fp32", "on")


def raising(error: Exception) -> Callable[..., torch.Tensor]:
    def compiled(z: torch.Tensor, beta: torch.Tensor) -> torch.Tensor:
        raise error

    return compiled


@pytest.mark.parametrize("error", [RuntimeError("Failed to find C compiler"), ImportError("triton"), OSError("disk")])
def test_where_nothing_compiles_the_prior_is_eager_from_then_on(
    net: USRNet, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    denoiser = compiled_denoiser(monkeypatch, net, raising(error))
    z, beta = torch.rand(1, 3, 16, 16), torch.full((1, 1, 1, 1), 0.1)
    with torch.inference_mode():
        for _ in range(3):
            denoiser.expect((1, 16, 16))
            assert torch.equal(denoiser(z, beta), denoiser._eager(z, beta))
    assert denoiser.name == "eager"
    assert len(caplog.records) == 1, "told once, not tried again"


def test_compiled_code_that_lacks_memory_says_so(net: USRNet, monkeypatch: pytest.MonkeyPatch) -> None:
    denoiser = compiled_denoiser(monkeypatch, net, raising(RuntimeError("CUDA out of memory")))
    denoiser.expect((1, 16, 16))
    with pytest.raises(RuntimeError, match="out of memory"):
        denoiser(torch.rand(1, 3, 16, 16), torch.full((1, 1, 1, 1), 0.1))


def test_no_more_shapes_are_compiled_than_torch_keeps(net: USRNet, monkeypatch: pytest.MonkeyPatch) -> None:
    denoiser = compiled_denoiser(monkeypatch, net, lambda z, beta: z)
    names = []
    for n in range(1, 12):
        denoiser.expect((n, 8, 8))
        denoiser(torch.rand(n, 3, 8, 8), torch.full((n, 1, 1, 1), 0.1))
        names.append(denoiser.name)
    assert names == ["compiled"] * 8 + ["eager"] * 3


@pytest.mark.parametrize("compile", ["off", "auto"])
def test_on_a_cpu_only_on_compiles(net: USRNet, monkeypatch: pytest.MonkeyPatch, compile: str) -> None:
    monkeypatch.setattr(onednn, "is_available", lambda: False)
    denoiser = Denoiser(net.p, torch.device("cpu"), "fp32", compile)
    for _ in range(100):
        denoiser.expect((1, 8, 8))
    denoiser(torch.rand(1, 3, 8, 8), torch.full((1, 1, 1, 1), 0.1))
    assert denoiser.name == "eager"


def test_a_gpu_compiles_what_came_in_many_batches(net: USRNet, monkeypatch: pytest.MonkeyPatch) -> None:
    """The device is a CPU that says it is a GPU; counted are batches, not the passes of each."""
    monkeypatch.setattr(backend, "_on_device", lambda prior, device, dtype: prior)
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    denoiser = Denoiser(net.p, torch.device("cuda"), "bf16", "auto")
    denoiser.dtype = torch.float32
    for batch in range(1, 35):
        denoiser.expect((1, 8, 8))
        for _ in range(SMALL.iterations):
            denoiser(torch.rand(1, 3, 8, 8), torch.full((1, 1, 1, 1), 0.1))
        assert (denoiser.name == "compiled") == (batch > 32)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, while it compiles
def test_compiled_code_gives_the_same_picture(net: USRNet) -> None:
    image, degradation = pair(24, 24, 2)
    results = [Restorer(net, precision="fp32", compile=c).batch([image], [degradation])[0] for c in ("on", "off")]
    compiled, plain = (r for r in results if isinstance(r, Restored))
    assert compiled.backend == "compiled"
    assert np.abs(compiled.image.astype(int) - plain.image).max() <= 1


@pytest.mark.parametrize("size", [(64, 40), (50, 37), (8, 8)])
@pytest.mark.parametrize("architecture", [TINY, Architecture(2, 8, (8, 24, 40, 16), 1)])
def test_onednns_prior_is_the_prior(architecture: Architecture, size: tuple[int, int]) -> None:
    torch.manual_seed(1)
    net = USRNet(architecture).eval()
    z, beta = torch.rand(2, 3, *size), torch.tensor([0.1, 0.3]).view(2, 1, 1, 1)
    with torch.inference_mode():
        expected = net.denoise(z, beta)
        fused, fused16 = (Denoiser(net.p, torch.device("cpu"), precision) for precision in ("fp32", "bf16"))
        assert fused.name == "onednn"
        assert (fused(z, beta) - expected).abs().max() < 1e-5 * expected.abs().max()
        assert (fused16(z, beta) - expected).abs().max() < 0.03 * expected.abs().max()


def test_bf16_is_close_to_fp32(net: USRNet) -> None:
    image, degradation = pair(32, 32, 2)
    exact, fast = (restore(net, [image], [degradation], precision=p)[0] for p in ("fp32", "bf16"))
    assert np.abs(exact.astype(int) - fast).mean() < 1.5


def test_auto_precision_names_one_the_device_has() -> None:
    assert best_precision(torch.device("cpu")) in ("fp32", "bf16")


def test_the_callers_network_is_left_as_it_was(net: USRNet) -> None:
    Restorer(net, precision="bf16")
    assert {p.dtype for p in net.parameters()} == {torch.float32}


# --- more than 8 bits


def ramps(height: int, width: int) -> np.ndarray:
    """Smooth colours through all levels: (height, width, 3) in [0, 1]."""
    y, x, c = np.ogrid[:height, :width, :3]
    return 0.5 + 0.3 * np.sin(x / 90 + c / 2) * np.cos(y / 70 - c / 3)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_sixteen_bits_stay_more_than_ten_bits_deep_and_nearer_to_the_truth(precision: str) -> None:
    hr, kernel = ramps(96, 128), parse_kernel("gaussian(1.2)", 2, "corner")
    lr = degrade(hr, kernel, 2, 0, boundary="reflect").clip(0, 1)
    deep, flat = (np.rint(lr * peak).astype(dtype) for peak, dtype in ((65535, np.uint16), (255, np.uint8)))
    by_16, by_8 = restore(load_usrnet(), [deep, flat], [Degradation(kernel, 2, 0)] * 2, precision=precision)
    assert len(np.unique(by_16)) > 2**10 > len(np.unique(by_8))
    better = psnr(by_16 / 65535, hr, border=16, peak=1.0) - psnr(by_8 / 255, hr, border=16, peak=1.0)
    assert better > 3, f"only {better:.2f} dB better than by way of 8 bits"


def test_floats_are_restored_as_floats(net: USRNet) -> None:
    image, degradation = pair(16, 16, 2)
    unit = (image / np.float32(255)).astype(np.float32)
    wide, eight = restore(net, [unit, image], [degradation] * 2, precision="fp32")
    assert wide.dtype == np.float32
    assert np.abs(wide * 255 - eight).max() <= 0.51
    assert 0 <= wide.min() <= wide.max() <= 1
