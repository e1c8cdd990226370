"""Kernels in files, and digests. The analytic grammar: tests/physics/test_kernels.py."""

import io
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from scipy.io import savemat

from pipeline.data import kernels, storage
from pipeline.errors import ItemError
from pipeline.physics.kernels import kernel_centroid, parse_kernel, shift_kernel

RNG = np.random.default_rng(0)
KERNEL = RNG.random((5, 7))
STACK = RNG.random((3, 5, 7))
UNIT = KERNEL / KERNEL.sum()


def npz(**arrays: npt.NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def npy(array: npt.NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def mat(**values: Any) -> bytes:
    file: Any = io.BytesIO()
    savemat(file, values)
    return bytes(file.getvalue())


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def cells(matrices: npt.NDArray[np.float64]) -> npt.NDArray[Any]:
    """What MATLAB calls a 1×n cell array."""
    out = np.empty((1, len(matrices)), object)
    for i, matrix in enumerate(matrices):
        out[0, i] = matrix
    return out


def csv(array: npt.NDArray[np.float64]) -> bytes:
    return "\n".join(",".join(map(repr, row)) for row in array.tolist()).encode()


FILES: dict[str, tuple[str, bytes, npt.NDArray[np.float64]]] = {
    "npy": ("k.npy", npy(KERNEL), KERNEL),
    "npy of integers, as Fortran lays it out": (
        "k.npy",
        npy(np.asfortranarray((KERNEL * 9).astype(int))),
        KERNEL * 9 // 1,
    ),
    "npy with an ending in capitals": ("K.NPY", npy(KERNEL), KERNEL),
    "a stack in npy": ("k.npy#[2]", npy(STACK), STACK[2]),
    "npz by name": ("k.npz#psf", npz(psf=KERNEL, other=STACK), KERNEL),
    "npz with one array": ("k.npz", npz(psf=KERNEL), KERNEL),
    "a stack in npz": ("k.npz#other[1]", npz(psf=KERNEL, other=STACK), STACK[1]),
    "npz beside objects": ("k.npz#psf", npz(psf=KERNEL, meta=np.array({"a": 1})), KERNEL),
    "a name with # in its folder": ("a#b/k.npz#psf", npz(psf=KERNEL, other=STACK), KERNEL),
    "mat by name": ("k.mat#psf", mat(psf=KERNEL, other=1.0), KERNEL),
    "mat with one matrix": ("k.mat", mat(psf=KERNEL), KERNEL),
    "a MATLAB stack": ("k.mat#set[2]", mat(set=np.moveaxis(STACK, 0, -1)), STACK[2]),
    "a MATLAB cell array": ("k.mat#kernels[1]", mat(kernels=cells(STACK), other=1.0), STACK[1]),
    "csv": ("k.csv", csv(KERNEL), KERNEL),
    "csv as Windows writes it": ("k.csv", b"\xef\xbb\xbf1, 2,3\r\n4,5,6e0\r\n\r\n", np.arange(1, 7.0).reshape(2, 3)),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("place", ["plain", "memory"])
def test_a_kernel_file_gives_its_numbers_normalised(name: str, place: str, tmp_path: Path) -> None:
    spec, data, expected = FILES[name]
    root = str(tmp_path) if place == "plain" else f"memory://{tmp_path.name}{len(name)}"
    storage.write_bytes(f"{root}/{spec.rpartition('#')[0] or spec}" if "#" in spec else f"{root}/{spec}", data)
    kernel = kernels.load_kernel(spec, 2, "corner", root=root)
    np.testing.assert_allclose(kernel, expected / expected.sum(), rtol=1e-12)
    assert kernel.dtype == np.float64


@pytest.mark.parametrize(
    ("dtype", "mode"), [(np.uint8, "L"), (np.uint16, "I;16"), (np.bool_, "1")], ids=["8 bits", "16 bits", "1 bit"]
)
def test_gray_levels_of_a_png_are_weights_at_any_depth(dtype: type, mode: str, tmp_path: Path) -> None:
    values: npt.NDArray[Any] = (KERNEL * (60_000 if mode == "I;16" else 250 if mode == "L" else 1.6)).astype(dtype)
    image = Image.fromarray(values)
    assert image.mode == mode
    (tmp_path / "k.png").write_bytes(png(image))
    loaded = kernels.load_kernel(f"{tmp_path}/k.png", 1, "corner")
    np.testing.assert_allclose(loaded, values / values.sum(), rtol=1e-12)


def test_the_kernels_of_the_paper_are_found_by_name_and_number(reference: Path) -> None:
    uri = f"{reference}/paper_kernels.npz"
    table = np.load(uri)["table1"]
    for number in (0, 11):
        expected = table[number] / table[number].sum()
        np.testing.assert_allclose(kernels.load_kernel(f"{uri}#table1[{number}]", 3, "corner"), expected, rtol=1e-12)


def test_phase_center_moves_a_file_and_corner_leaves_it(tmp_path: Path) -> None:
    (tmp_path / "k.npy").write_bytes(npy(KERNEL))
    before = kernel_centroid(UNIT)
    for scale in (1, 2, 3, 4):
        centred = kernels.load_kernel("k.npy", scale, "center", root=str(tmp_path))
        np.testing.assert_allclose(kernel_centroid(centred), np.subtract(before, (scale - 1) / 2), atol=1e-12)
        np.testing.assert_allclose(centred, shift_kernel(UNIT, (scale - 1) / 2), rtol=0, atol=1e-15)
        as_it_is = kernels.load_kernel("k.npy", scale, "corner", root=str(tmp_path))
        np.testing.assert_allclose(as_it_is, UNIT, rtol=1e-14)


def test_center_is_the_default_phase(tmp_path: Path) -> None:
    (tmp_path / "k.npy").write_bytes(npy(KERNEL))
    np.testing.assert_array_equal(
        kernels.load_kernel(f"{tmp_path}/k.npy", 2), kernels.load_kernel(f"{tmp_path}/k.npy", 2, "center")
    )


def test_analytic_kernels_come_from_the_grammar() -> None:
    for phase in ("center", "corner"):
        np.testing.assert_array_equal(
            kernels.load_kernel("gaussian(1.6)", 3, phase), parse_kernel("gaussian(1.6)", 3, phase)
        )


def test_a_kernel_given_as_numbers_is_treated_like_a_file(tmp_path: Path) -> None:
    (tmp_path / "k.npy").write_bytes(npy(KERNEL))
    from_file = kernels.load_kernel(f"{tmp_path}/k.npy", 2, "center")
    np.testing.assert_array_equal(kernels.from_array(KERNEL.tolist(), 2, "center", max_width=7), from_file)
    with pytest.raises(ItemError, match="kernel_values: it spans 5 x 7 HR pixels") as caught:
        kernels.from_array(KERNEL.tolist(), 2, "center", max_width=6, name="kernel_values")
    assert caught.value.code == "over-limit"


# --- what is refused


def matlab_73() -> bytes:
    return b"MATLAB 7.3 MAT-file".ljust(124) + struct.pack("<H", 0x0200) + b"IM" + bytes(500)


def bomb() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("k.npy", bytes(2**26 + 1))
    return file.getvalue()


REFUSED: dict[str, tuple[str, Callable[[], bytes], str, str]] = {
    "no such name": ("k.npz#psf2", lambda: npz(psf=KERNEL, s=STACK), "bad-kernel", "has no array 'psf2'"),
    "which name": ("k.npz", lambda: npz(psf=KERNEL, s=STACK), "bad-kernel", "#name: psf (5, 7), s (3, 5, 7)"),
    "which of the stack": ("k.npz#s", lambda: npz(s=STACK), "bad-kernel", "choose one with #s[0] to #s[2]"),
    "beyond the stack": ("k.npz#s[3]", lambda: npz(s=STACK), "bad-kernel", "has no kernel 3"),
    "one of one": ("k.npz#s[0]", lambda: npz(s=KERNEL), "bad-kernel", "s is one array, so [0] picks nothing"),
    "which cell": ("k.mat", lambda: mat(k=cells(STACK)), "bad-kernel", "choose one with #k[0] to #k[2]: k 3 cells"),
    "a name in npy": ("k.npy#psf", lambda: npy(KERNEL), "bad-kernel", "has no array 'psf'"),
    "pickled": ("k.npy", lambda: npy(np.array([[{}]])), "bad-kernel", "cannot be read as .npy"),
    "pickled in npz": ("k.npz#m", lambda: npz(m=np.array([[{}]])), "bad-kernel", "cannot be read as .npz"),
    "pickle itself": ("k.npy", lambda: pickle.dumps(KERNEL), "bad-kernel", "cannot be read as .npy"),
    "objects listed": ("k.npz#x", lambda: npz(k=KERNEL, m=np.array([[{}]])), "bad-kernel", "k (5, 7), m (no numbers)"),
    "complex": ("k.npy", lambda: npy(KERNEL * 1j), "bad-kernel", "holds complex128, not real numbers"),
    "text": ("k.npz#t", lambda: npz(t=np.array([["a"]])), "bad-kernel", "not real numbers"),
    "four dimensions": ("k.npy", lambda: npy(STACK[None]), "bad-kernel", "must be a non-empty 2-D array"),
    "one dimension": ("k.npy", lambda: npy(KERNEL[0]), "bad-kernel", "must be a non-empty 2-D array"),
    "empty": ("k.npy", lambda: npy(KERNEL[:0]), "bad-kernel", "must be a non-empty 2-D array"),
    "NaN": ("k.csv", lambda: b"1,nan\n2,3", "bad-kernel", "NaN, infinite"),
    "zero sum": ("k.csv", lambda: b"1,-1\n-1,1", "bad-kernel", "sums to zero"),
    "ragged": ("k.csv", lambda: b"1,2\n3", "bad-kernel", "rows have different numbers of values"),
    "no number": ("k.csv", lambda: b"1,two\n3,4", "bad-kernel", "could not convert string to float: 'two'"),
    "nothing in it": ("k.csv", lambda: b"\n\n", "bad-kernel", "must be a non-empty 2-D array"),
    "no text": ("k.csv", lambda: b"\xff\xfe\0", "bad-kernel", "cannot be read as .csv"),
    "cut npy": ("k.npy", lambda: npy(KERNEL)[:-9], "bad-kernel", "cannot be read as .npy"),
    "cut npz": ("k.npz", lambda: npz(k=KERNEL)[:-30], "bad-kernel", "cannot be read as .npz"),
    "cut mat": ("k.mat", lambda: mat(k=KERNEL)[:-30], "bad-kernel", "cannot be read as .mat"),
    "no mat": ("k.mat", lambda: b"rubbish" * 100, "bad-kernel", "cannot be read as .mat"),
    "MATLAB 7.3": ("k.mat", matlab_73, "bad-kernel", "save it with the option -v7"),
    "nothing": ("k.npz", lambda: b"", "bad-kernel", "cannot be read as .npz"),
    "cut png": ("k.png", lambda: png(Image.new("L", (9, 9), 3))[:-20], "bad-kernel", "cut short"),
    "no png": ("k.png", lambda: b"rubbish", "bad-kernel", "cannot be read as .png"),
    "colour": ("k.png", lambda: png(Image.new("RGB", (9, 9))), "bad-kernel", "of mode RGB; save it as a gray image"),
    "alpha": ("k.png", lambda: png(Image.new("LA", (9, 9))), "bad-kernel", "of mode LA"),
    "black": ("k.png", lambda: png(Image.new("L", (9, 9))), "bad-kernel", "sums to zero"),
    "wide": (
        "k.npy",
        lambda: npy(np.ones((3, 513))),
        "over-limit",
        "spans 3 x 513 HR pixels; `limits.kernel` allows 512",
    ),
    "wide png": ("k.png", lambda: png(Image.new("L", (600, 9), 1)), "over-limit", "spans 9 x 600 HR pixels"),
    "huge png": ("k.png", lambda: png(Image.new("1", (9000, 9000), 1)), "over-limit", "far more than any kernel"),
    "bomb": ("k.npz", bomb, "over-limit", "unpacks to more than"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_unusable_kernel_file_is_refused_with_its_name_and_the_reason(name: str, tmp_path: Path) -> None:
    spec, data, code, says = REFUSED[name]
    (tmp_path / spec.partition("#")[0]).write_bytes(data())
    with pytest.raises(ItemError) as caught:
        kernels.load_kernel(spec, 2, root=str(tmp_path))
    assert caught.value.code == code
    assert says in str(caught.value)
    assert str(caught.value).startswith(f"{tmp_path}/{spec}: ")


@pytest.mark.parametrize(
    ("spec", "code", "says"),
    [
        ("gausian(1.6)", "bad-kernel", "'gausian(1.6)' is neither one of: delta, gaussian(sd)"),
        ("k.tif", "bad-kernel", "nor the URI of a file ending in .npy, .npz, .png, .mat, .csv"),
        ("k.npz#a[b]", "bad-kernel", "and #name[index] where it holds several"),
        ("", "bad-kernel", "is neither one of"),
        ("gaussian(-1)", "bad-kernel", "lengths must lie"),
        ("gaussian(99)", "over-limit", "gaussian(99): it spans 795 x 795 HR pixels"),
        ("missing.npy", "bad-kernel", "missing.npy: there is no such object"),
        ("s3://bkt/../k.npy", "bad-metadata", "has the segment `..`"),
    ],
)
def test_an_unusable_specification_is_refused(spec: str, code: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(ItemError) as caught:
        kernels.load_kernel(spec, 2, root=str(tmp_path))
    assert caught.value.code == code
    assert says in str(caught.value)


def test_impossible_scales_and_phases_are_refused(tmp_path: Path) -> None:
    (tmp_path / "k.npy").write_bytes(npy(KERNEL))
    for spec in ("delta", f"{tmp_path}/k.npy"):
        with pytest.raises(ItemError, match="scale must be") as caught:
            kernels.load_kernel(spec, 0)
        assert caught.value.code == "bad-scale"
        with pytest.raises(ItemError, match="phase must be one of center, corner"):
            kernels.load_kernel(spec, 2, "middle")


def test_a_kernel_as_wide_as_the_limit_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "k.npy").write_bytes(npy(np.ones((70, 67))))
    assert kernels.load_kernel(f"{tmp_path}/k.npy", 2, "corner", max_width=70).shape == (70, 67)


# --- digests


def test_a_digest_is_that_of_the_canonical_text() -> None:
    assert kernels.kernel_digest(" gaussian( 1.60 )") == kernels.kernel_digest("gaussian(1.6)")
    assert kernels.kernel_digest("gaussian(1.6)") != kernels.kernel_digest("gaussian(1.7)")
    assert kernels.kernel_digest("delta") == "4f4a9410ffcdf895"  # sha256("delta"): the same for ever


def test_a_digest_changes_with_the_bytes_and_the_selector_not_with_the_place(tmp_path: Path) -> None:
    for name, data in {"a.npz": npz(s=STACK), "b.npz": npz(s=STACK), "c.npz": npz(s=STACK + 1)}.items():
        (tmp_path / name).write_bytes(data)
    digests = {spec: kernels.kernel_digest(spec, str(tmp_path)) for spec in ("a.npz#s[0]", "b.npz#s[0]", "c.npz#s[0]")}
    assert digests["a.npz#s[0]"] == digests["b.npz#s[0]"] != digests["c.npz#s[0]"]
    assert kernels.kernel_digest("a.npz#s[1]", str(tmp_path)) != digests["a.npz#s[0]"]
    assert all(len(digest) == 16 and int(digest, 16) >= 0 for digest in digests.values())


def test_a_digest_of_what_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ItemError) as caught:
        kernels.kernel_digest("k.npy", str(tmp_path))
    assert caught.value.code == "bad-kernel"
    with pytest.raises(ItemError, match="is neither one of"):
        kernels.kernel_digest("gausian(1.6)")


def test_a_digest_of_numbers_tells_numbers_and_shapes_apart() -> None:
    assert kernels.values_digest([[1, 2], [3, 4]]) == kernels.values_digest([[1.0, 2.0], [3.0, 4.0]])
    different = ([[1.0, 2.0, 3.0, 4.0]], [[1.0, 2.0], [3.0, 4.0]], [[1.0, 2.0], [3.0, 4.5]])
    assert len({kernels.values_digest(values) for values in different}) == 3
    with pytest.raises(ItemError, match="not a table of"):
        kernels.values_digest([[1.0, 2.0], [3.0]])


# --- the centroid check


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_a_kernel_shifted_for_corner_is_warned_of(scale: int) -> None:
    shifted = parse_kernel("gaussian(1.6)", scale, "center")
    warning = kernels.warn_shifted(shifted, scale)
    assert warning is not None
    assert f"centroid is at {-(scale - 1) / 2:g} on both axes already" in warning
    assert "set phase to corner" in warning
    assert "\n" not in warning


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_a_centred_kernel_is_not_warned_of(scale: int) -> None:
    assert kernels.warn_shifted(parse_kernel("gaussian(1.6)"), scale) is None


def test_a_kernel_shifted_on_one_axis_only_is_not_warned_of() -> None:
    assert kernels.warn_shifted(np.array([[0.0, 0, 0], [1, 0, 0], [0, 0, 0]]), 3) is None


def test_of_the_kernels_of_the_paper_only_the_bicubic_ones_are_warned_of(reference: Path) -> None:
    uri = f"{reference}/paper_kernels.npz"
    for scale in (2, 3, 4):
        warned = [
            kernels.warn_shifted(kernels.load_kernel(f"{uri}#table1[{i}]", scale, "corner"), scale) for i in range(12)
        ]
        assert warned == [None] * 12
        bicubic = kernels.load_kernel(f"{uri}#bicubic_x{scale}", scale, "corner")
        assert kernels.warn_shifted(bicubic, scale) is not None


def test_a_stack_gives_all_its_kernels_as_they_are(tmp_path: Path) -> None:
    stack = np.random.default_rng(0).random((3, 5, 4)) + 0.1
    np.savez(tmp_path / "k.npz", several=stack, one=stack[0])
    several = kernels.load_stack(f"{tmp_path}/k.npz#several")
    assert len(several) == 3
    for found, given in zip(several, stack, strict=True):
        np.testing.assert_allclose(found, given / given.sum())
    for spec in ("k.npz#one", "k.npz#several[0]"):
        (found,) = kernels.load_stack(f"{tmp_path}/{spec}")
        np.testing.assert_allclose(found, stack[0] / stack[0].sum())
    with pytest.raises(ItemError, match="no array 'none'"):
        kernels.load_stack(f"{tmp_path}/k.npz#none")
