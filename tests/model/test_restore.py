"""The Restorer: any mixture of images, one answer each."""

import numpy as np
import pytest
import torch

from pipeline.errors import ItemError
from pipeline.model.restore import Restored, Restorer, best_precision, restore, working_shape
from pipeline.model.usrnet import Architecture, USRNet
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
    bad = [np.zeros((4, 4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8), np.zeros((4, 4, 3), np.float32)]
    results = Restorer(net).batch([good, *bad, good], [degradation] * 5)
    codes = [r.code if isinstance(r, ItemError) else "done" for r in results]
    assert codes == ["done", "unsupported-mode", "corrupt-image", "unsupported-mode", "done"]


def test_restore_raises_the_first_failure_naming_its_place(net: USRNet) -> None:
    good, degradation = pair(16, 16, 2)
    with pytest.raises(ItemError, match=r"images\[1\].*float32"):
        restore(net, [good, good.astype(np.float32)], [degradation] * 2)  # type: ignore[list-item]


def test_a_result_that_is_not_finite_is_refused_after_a_second_look_in_fp32() -> None:
    net = initial_usrnet(SMALL, seed=0)
    net.p.m_tail.weight.data[0] = float("nan")
    image, degradation = pair(16, 16, 2)
    for precision in ("fp32", "bf16"):
        (result,) = Restorer(net, precision=precision).batch([image], [degradation])
        assert isinstance(result, ItemError)
        assert result.code == "bad-result"


def test_what_overflows_in_half_precision_is_computed_again_in_fp32(
    net: USRNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, degradation = pair(16, 16, 2)
    restorer = Restorer(net, precision="bf16")
    plain = restorer._fast.unfold
    monkeypatch.setattr(restorer._fast, "unfold", lambda *args: plain(*args) * float("inf"))
    (result,) = restorer.batch([image], [degradation])
    (exact,) = Restorer(net, precision="fp32").batch([image], [degradation])
    assert isinstance(result, Restored)
    assert isinstance(exact, Restored)
    assert np.array_equal(result.image, exact.image)
    assert result.precision == "fp32", "what it was computed in, not what was asked for"


def test_out_of_memory_halves_the_batch_and_goes_on(net: USRNet, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [pair(16, 16, 2, seed=n) for n in range(5)]
    restorer = Restorer(net, precision="fp32")
    expected = images_of(restorer.batch(*map(list, zip(*cases, strict=True))))
    whole = restorer._together

    def room_for_two(tasks: list) -> list:
        if len(tasks) > 2:
            raise torch.OutOfMemoryError("pretended")
        return whole(tasks)

    monkeypatch.setattr(restorer, "_together", room_for_two)
    results = images_of(restorer.batch(*map(list, zip(*cases, strict=True))))
    assert len(results) == 5
    assert all(np.abs(a.astype(int) - b).max() <= 1 for a, b in zip(results, expected, strict=True))


def test_no_memory_even_for_one_is_that_items_failure(net: USRNet, monkeypatch: pytest.MonkeyPatch) -> None:
    image, degradation = pair(16, 16, 2)
    restorer = Restorer(net)

    def no_room(tasks: list) -> list:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")

    monkeypatch.setattr(restorer, "_together", no_room)
    (result,) = restorer.batch([image], [degradation])
    assert isinstance(result, ItemError)
    assert result.code == "out-of-memory"


@pytest.mark.parametrize("scale", [1, 2, 3, 4, 5, 7])
def test_working_shapes_leave_room_and_suit_the_fft_and_the_prior(scale: int) -> None:
    for n in (1, 17, 100, 333):
        for width in (1, 25, 70):
            degradation = Degradation(np.ones((width, width)), scale, 0)
            (h, w) = working_shape((n, n), degradation, "smooth")
            assert h == w > n
            assert h * scale >= width
            assert h * scale % 8 == 0
            rest = h
            for prime in (2, 3, 5):
                while rest % prime == 0:
                    rest //= prime
            assert rest == 1
            assert working_shape((n, n), degradation, "circular") == (n, n)


def test_bf16_is_close_to_fp32(net: USRNet) -> None:
    image, degradation = pair(32, 32, 2)
    exact, fast = (restore(net, [image], [degradation], precision=p)[0] for p in ("fp32", "bf16"))
    assert np.abs(exact.astype(int) - fast).mean() < 1.5


def test_auto_precision_names_one_the_device_has() -> None:
    assert best_precision(torch.device("cpu")) in ("fp32", "bf16")


def test_the_callers_network_is_left_as_it_was(net: USRNet) -> None:
    Restorer(net, precision="bf16")
    assert {p.dtype for p in net.parameters()} == {torch.float32}
