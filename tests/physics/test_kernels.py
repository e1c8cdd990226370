"""The analytic kernels against what their words mean: moments, areas, and other people's resizers."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.errors import ItemError
from pipeline.physics.degradation import degrade
from pipeline.physics.kernels import (
    canonical_spec,
    is_analytic,
    kernel_centroid,
    keys_cubic,
    parse_kernel,
    phase_shift,
    random_gaussian_kernel,
    random_motion_kernel,
    shift_kernel,
)

Kernel = npt.NDArray[np.float64]

SPECS = ["delta", "gaussian(0.8)", "gaussian(1.6)", "gaussian(3, 1, 30)", "disk(3.5)", "motion(15, 30)", "motion(4, 0)"]


def covariance(kernel: Kernel) -> Kernel:
    """Second central moments ((xx, xy), (xy, yy)) with y counted upwards, as angles are."""
    y, x = np.meshgrid(*(np.arange(n, dtype=float) for n in kernel.shape), indexing="ij")
    y, x = -(y - (kernel * y).sum()), x - (kernel * x).sum()
    return np.array(
        [[(kernel * x * x).sum(), (kernel * x * y).sum()], [(kernel * x * y).sum(), (kernel * y * y).sum()]]
    )


def principal(kernel: Kernel) -> tuple[float, float, float]:
    """Variances along the long and the short axis, and the long axis' angle in degrees, [0, 180)."""
    variances, axes = np.linalg.eigh(covariance(kernel))
    return variances[1], variances[0], float(np.degrees(np.arctan2(axes[1, 1], axes[0, 1])) % 180)


def centred(kernel: Kernel, width: int = 61) -> Kernel:
    """The kernel in a larger array, its origin at the same place."""
    out = np.zeros((width, width))
    top, left = (width // 2 - n // 2 for n in kernel.shape)
    out[top : top + kernel.shape[0], left : left + kernel.shape[1]] = kernel
    return out


# --- all of them


@pytest.mark.parametrize("phase", ["corner", "center"])
@pytest.mark.parametrize("scale", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("spec", SPECS)
def test_the_centroid_is_at_the_sampling_point_of_the_phase(spec: str, scale: int, phase: str) -> None:
    kernel = parse_kernel(spec, scale, phase)
    expected = -(scale - 1) / 2 if phase == "center" else 0
    np.testing.assert_allclose(kernel_centroid(kernel), expected, atol=2e-3)


@pytest.mark.parametrize("spec", [*SPECS, "bicubic"])
@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_kernels_are_odd_and_sum_to_1(spec: str, scale: int) -> None:
    for phase in ("corner", "center"):
        kernel = parse_kernel(spec, scale, phase)
        assert all(n % 2 == 1 for n in kernel.shape)
        assert kernel.dtype == np.float64
        assert kernel.sum() == pytest.approx(1, abs=1e-14)


@pytest.mark.parametrize("spec", SPECS)
def test_corner_is_the_same_at_every_scale_and_center_is_corner_at_scale_1(spec: str) -> None:
    corner = parse_kernel(spec)
    for scale in (2, 3, 4):
        np.testing.assert_array_equal(parse_kernel(spec, scale, "corner"), corner)
    np.testing.assert_array_equal(parse_kernel(spec, 1, "center"), corner)


@pytest.mark.parametrize("spec", ["gaussian(1.6)", "gaussian(3, 1.2, 30)"])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_a_kernel_sampled_at_center_is_the_one_interpolated_there(spec: str, scale: int) -> None:
    sampled = centred(parse_kernel(spec, scale, "center"))
    interpolated = centred(shift_kernel(parse_kernel(spec), (scale - 1) / 2))
    assert np.abs(sampled - interpolated).max() < 0.03 * sampled.max()  # the error of cubic interpolation


# --- gaussian


@pytest.mark.parametrize("sd", [0.8, 1.6, 2.4, 4.0])
@pytest.mark.parametrize(("scale", "phase"), [(1, "corner"), (2, "center"), (3, "center")])
def test_the_moments_of_a_gaussian_are_its_standard_deviation(sd: float, scale: int, phase: str) -> None:
    expected = sd**2 * np.eye(2)
    np.testing.assert_allclose(
        covariance(parse_kernel(f"gaussian({sd})", scale, phase)), expected, rtol=3e-3, atol=1e-12
    )


@pytest.mark.parametrize("angle", [0, 30, 45, 90, 120, 179, -30, 400])
@pytest.mark.parametrize("phase", ["corner", "center"])
def test_the_first_standard_deviation_lies_along_the_angle(angle: float, phase: str) -> None:
    long, short, found = principal(parse_kernel(f"gaussian(3, 1.2, {angle})", 3, phase))
    np.testing.assert_allclose((long, short), (9, 1.44), rtol=3e-3)
    assert abs((found - angle + 90) % 180 - 90) < 0.01


def test_45_degrees_rise_to_the_right_as_displayed() -> None:
    kernel = parse_kernel("gaussian(3, 1, 45)")
    n = kernel.shape[0]
    assert kernel[n // 2 - 3, n // 2 + 3] > 10 * kernel[n // 2 + 3, n // 2 + 3]  # row 0 is the top


def test_swapping_the_deviations_turns_by_90_degrees() -> None:
    np.testing.assert_allclose(parse_kernel("gaussian(3,1,20)"), parse_kernel("gaussian(1,3,110)"), atol=1e-15)


def test_a_gaussian_reaches_4_standard_deviations() -> None:
    assert parse_kernel("gaussian(2)").shape == (17, 17)
    assert parse_kernel("gaussian(2, 0.5, 30)").shape == (17, 17)


def test_a_gaussian_narrower_than_a_pixel_is_a_delta_in_its_phase() -> None:
    np.testing.assert_array_equal(centred(parse_kernel("gaussian(0.01)")), centred(parse_kernel("delta")))
    narrow, delta = (parse_kernel(spec, 2, "center") for spec in ("gaussian(0.001)", "delta"))
    np.testing.assert_array_equal(centred(narrow), centred(delta))


# --- disk and motion


@pytest.mark.parametrize("radius", [2.5, 3.5, 7.25])
@pytest.mark.parametrize("phase", ["corner", "center"])
def test_a_disk_has_the_area_and_the_moments_of_a_disk(radius: float, phase: str) -> None:
    kernel = parse_kernel(f"disk({radius})", 2, phase)
    pixel = 1 / 12  # variance of the pixel that a tap stands for
    np.testing.assert_allclose(covariance(kernel), (radius**2 / 4 + pixel) * np.eye(2), rtol=0.03, atol=1e-12)
    assert 1 / kernel.max() == pytest.approx(np.pi * radius**2, rel=0.01)


def test_a_disk_within_one_pixel_is_a_delta() -> None:
    np.testing.assert_allclose(centred(parse_kernel("disk(0.5)")), centred(parse_kernel("delta")))


@pytest.mark.parametrize(("length", "angle"), [(15, 30), (15, 0), (9, 90), (20.5, 135), (8, -60), (30, 10)])
@pytest.mark.parametrize("phase", ["corner", "center"])
def test_a_motion_has_the_length_and_the_angle_it_says(length: float, angle: float, phase: str) -> None:
    long, short, found = principal(parse_kernel(f"motion({length}, {angle})", 3, phase))
    spread = 0.17  # bilinear spreading adds f(1 - f) on each axis, 1/6 on average
    assert long == pytest.approx(length**2 / 12, abs=spread + 0.1)
    assert short < 0.26
    assert abs((found - angle + 90) % 180 - 90) < 1


def test_a_motion_along_a_row_stays_in_the_row_and_lasts_as_long_everywhere() -> None:
    kernel = parse_kernel("motion(9, 0)")
    row = kernel[kernel.shape[0] // 2]
    assert row.sum() == pytest.approx(1)
    np.testing.assert_allclose(row[np.abs(np.arange(row.size) - row.size // 2) <= 3], 1 / 9, rtol=0.01)


# --- bicubic


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_bicubic_is_what_pillow_does_when_it_shrinks(scale: int) -> None:
    hr = np.random.default_rng(scale).random((60, 72)).astype(np.float32)
    small = Image.fromarray(hr).resize((72 // scale, 60 // scale), Image.Resampling.BICUBIC)
    lr = degrade(hr, parse_kernel("bicubic", scale), scale, 0.0)
    interior = (slice(3, -3), slice(3, -3))
    np.testing.assert_allclose(lr[interior], np.asarray(small)[interior], atol=1e-6)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_bicubic_ignores_the_phase(scale: int) -> None:
    kernel = parse_kernel("bicubic", scale, "corner")
    np.testing.assert_array_equal(parse_kernel("bicubic", scale, "center"), kernel)
    np.testing.assert_allclose(kernel_centroid(kernel), -(scale - 1) / 2, atol=1e-12)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_bicubic_is_close_to_the_authors_fitted_kernels(scale: int, reference: Path) -> None:
    theirs = np.load(reference / "paper_kernels.npz")[f"bicubic_x{scale}"]
    difference = centred(parse_kernel("bicubic", scale)) - centred(theirs)
    assert np.abs(difference).max() < 0.04 * theirs.max()  # theirs were estimated from images


def test_bicubic_at_scale_1_is_no_blur() -> None:
    np.testing.assert_allclose(parse_kernel("bicubic", 1), [[1.0]])


def test_keys_cubic_interpolates_quadratics_exactly() -> None:
    shift, t = 0.3, np.arange(-3.0, 5.0)
    weights = keys_cubic(shift - t)
    assert weights @ (2 * t**2 - 3 * t + 1) == pytest.approx(2 * shift**2 - 3 * shift + 1)


# --- shifting arrays


@pytest.mark.parametrize("shape", [(5, 5), (4, 6), (1, 7), (25, 25)])
@pytest.mark.parametrize("shift", [0.0, 0.5, 1.0, 1.5, 2.0])
def test_a_shift_moves_the_centroid_and_keeps_the_sum(shape: tuple[int, int], shift: float) -> None:
    kernel = np.random.default_rng(0).random(shape)
    kernel /= kernel.sum()
    moved = shift_kernel(kernel, shift)
    np.testing.assert_allclose(kernel_centroid(moved), np.subtract(kernel_centroid(kernel), shift), atol=1e-12)
    assert moved.sum() == pytest.approx(1)


def test_a_shift_by_whole_pixels_only_moves_the_array() -> None:
    kernel = np.random.default_rng(0).random((5, 7))
    kernel /= kernel.sum()
    expected = np.roll(centred(kernel), (-2, -2), axis=(0, 1))
    np.testing.assert_allclose(centred(shift_kernel(kernel, 2.0)), expected, atol=1e-15)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_center_phase_undoes_itself_on_a_symmetric_image(scale: int) -> None:
    """A mirrored scene gives a mirrored LR image if, and only if, the sampling point is the block's centre."""
    hr = np.random.default_rng(0).random((12 * scale, 12 * scale))
    for spec in ("gaussian(1.6)", "disk(2)", "bicubic"):
        kernel = parse_kernel(spec, scale, "center")
        lr, mirrored = degrade(hr, kernel, scale, 0.0), degrade(hr[::-1, ::-1], kernel, scale, 0.0)
        np.testing.assert_allclose(mirrored, lr[::-1, ::-1], atol=1e-5)  # a Gaussian is cut at 4 deviations
        if spec != "bicubic":
            corner = parse_kernel(spec, scale, "corner")
            away = degrade(hr[::-1, ::-1], corner, scale, 0.0) - degrade(hr, corner, scale, 0.0)[::-1, ::-1]
            assert np.abs(away).max() > 0.01


# --- the grammar


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("", "is not one of: delta, gaussian(sd)"),
        ("gausian(1.6)", "'gausian(1.6)' is not one of"),
        ("Gaussian(1.6)", "is not one of"),
        ("gaussian 1.6", "is not one of"),
        ("gaussian(1.6", "is not one of"),
        ("gaussian(1.6))", "is not one of"),
        ("gaussian", "has 0 numbers"),
        ("gaussian()", "has 0 numbers"),
        ("gaussian(1,2)", "has 2 numbers"),
        ("gaussian(1,2,3,4)", "has 4 numbers"),
        ("gaussian(a)", "'a' is not a list of numbers"),
        ("gaussian(1,,2)", "is not a list of numbers"),
        ("gaussian(nan)", "is not finite"),
        ("gaussian(1,1,inf)", "is not finite"),
        ("gaussian(0)", "lengths must lie"),
        ("gaussian(1,-1,0)", "lengths must lie"),
        ("disk(-3)", "lengths must lie"),
        ("disk(1e9)", "lengths must lie"),
        ("motion(5)", "has 1 numbers"),
        ("motion(0, 30)", "lengths must lie"),
        ("delta(1)", "has 1 numbers"),
        ("bicubic(2)", "has 1 numbers"),
    ],
)
def test_a_wrong_specification_is_named_with_what_is_wrong(spec: str, says: str) -> None:
    with pytest.raises(ItemError) as caught:
        parse_kernel(spec)
    assert caught.value.code == "bad-kernel"
    assert says in str(caught.value)
    assert repr(spec) in str(caught.value)


@pytest.mark.parametrize("scale", [0, -1, 1.5, "2", True, float("nan")])
def test_a_wrong_scale_is_bad_scale(scale: object) -> None:
    with pytest.raises(ItemError) as caught:
        parse_kernel("delta", scale)  # type: ignore[arg-type]
    assert caught.value.code == "bad-scale"


def test_a_wrong_phase_is_refused() -> None:
    with pytest.raises(ItemError, match="phase must be one of center, corner, not 'middle'"):
        phase_shift(2, "middle")


@pytest.mark.parametrize(
    ("spec", "canonical"),
    [
        (" gaussian( 1.60 ) ", "gaussian(1.6)"),
        ("gaussian(2,.5,4.5e1)", "gaussian(2,0.5,45)"),
        ("motion(15.0, 30)", "motion(15,30)"),
        ("delta", "delta"),
        ("delta()", "delta"),
        ("bicubic", "bicubic"),
    ],
)
def test_equal_specifications_have_one_spelling(spec: str, canonical: str) -> None:
    assert canonical_spec(spec) == canonical
    np.testing.assert_array_equal(parse_kernel(spec, 2, "center"), parse_kernel(canonical, 2, "center"))


ARITIES = {"delta": [0], "gaussian": [1, 3], "disk": [1], "motion": [2], "bicubic": [0]}
LENGTHS = st.floats(0.1, 12) | st.integers(1, 12)
ANGLES = st.floats(-720, 720) | st.integers(-360, 360)
BLANKS = st.text(" \t", max_size=2)


@st.composite
def spoken(draw: st.DrawFn) -> tuple[str, list[float]]:
    """A name of the grammar with as many numbers as it takes."""
    name = draw(st.sampled_from(sorted(ARITIES)))
    arity = draw(st.sampled_from(ARITIES[name]))
    lengths = min(arity, 1 if name == "motion" else 2)
    return name, [float(draw(LENGTHS if n < lengths else ANGLES)) for n in range(arity)]


@st.composite
def spelled(draw: st.DrawFn, spec: tuple[str, list[float]]) -> str:
    """One of the many ways to write it: blanks, exponents, signs, superfluous digits."""
    name, numbers = spec
    formats = st.sampled_from(["{!r}", "{:.17e}", "+{:.20g}", "{:.30e}"])
    cells = [draw(formats).format(number).replace("+-", "-") for number in numbers]
    cells = [draw(BLANKS) + cell + draw(BLANKS) for cell in cells]
    inside = f"({','.join(cells)})" if cells or draw(st.booleans()) else ""
    return draw(BLANKS) + name + draw(BLANKS) + inside + draw(BLANKS)


@given(spoken(), st.data())
def test_however_a_kernel_is_spelled_it_has_one_canonical_spelling(
    spec: tuple[str, list[float]], data: st.DataObject
) -> None:
    canonical = canonical_spec(data.draw(spelled(spec)))
    assert canonical_spec(data.draw(spelled(spec))) == canonical == canonical_spec(canonical)
    name, _, inside = canonical.partition("(")
    assert (name, [float(n) for n in inside.rstrip(")").split(",") if n]) == spec, "no digit is lost"


@given(spoken(), spoken())
def test_other_kernels_have_other_canonical_spellings(
    one: tuple[str, list[float]], two: tuple[str, list[float]]
) -> None:
    spellings = [canonical_spec(f"{name}({','.join(map(repr, numbers))})") for name, numbers in (one, two)]
    assert (spellings[0] == spellings[1]) == (one == two)


@given(spoken(), st.integers(1, 4), st.sampled_from(["center", "corner"]), st.data())
def test_what_the_grammar_allows_is_a_kernel_and_its_spelling_says_nothing(
    spec: tuple[str, list[float]], scale: int, phase: str, data: st.DataObject
) -> None:
    text = data.draw(spelled(spec))
    kernel = parse_kernel(text, scale, phase)
    assert is_analytic(text)
    assert np.isfinite(kernel).all()
    assert kernel.sum() == pytest.approx(1)
    assert kernel.ndim == 2
    np.testing.assert_array_equal(kernel, parse_kernel(canonical_spec(text), scale, phase))


PIECES = st.sampled_from([*ARITIES, "(", ")", ",", " ", "1.6", "-3", "1e9", "nan", "inf", "0", "1_0", "٣", "x", "\n"])


def canonical_or_refusal(text: str) -> str | ItemError:
    try:
        return canonical_spec(text)
    except ItemError as error:
        return error


@given(st.text(max_size=30) | st.lists(PIECES, max_size=8).map("".join))
def test_any_text_is_a_kernel_with_one_spelling_or_a_bad_kernel_that_is_named(text: str) -> None:
    told = canonical_or_refusal(text)
    if isinstance(told, ItemError):
        assert told.code == "bad-kernel"
        assert repr(text) in str(told)
    else:
        assert is_analytic(text)
        assert canonical_spec(told) == told
        assert told.isascii()


def test_what_is_analytic_and_what_a_file() -> None:
    assert all(is_analytic(spec) for spec in [*SPECS, "bicubic", " disk (3) ", "gaussian(oops)"])
    assert not any(is_analytic(spec) for spec in ["k.npy", "s3://b/delta.npz#k[1]", "delta.csv", "values", ""])


# --- random kernels for training


@pytest.mark.parametrize("make", [random_gaussian_kernel, random_motion_kernel])
def test_random_kernels_are_kernels_and_the_seed_decides(make: object) -> None:
    assert callable(make)
    for seed in range(20):
        kernel = make(np.random.default_rng(seed), 25)
        assert kernel.shape == (25, 25)
        assert kernel.min() >= 0
        assert kernel.sum() == pytest.approx(1)
        np.testing.assert_array_equal(kernel, make(np.random.default_rng(seed), 25))
    assert not np.array_equal(make(np.random.default_rng(1), 25), make(np.random.default_rng(2), 25))
