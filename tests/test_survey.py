"""From a catalog and a manifest on disk to a plan."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.data import storage
from pipeline.errors import ConfigError
from pipeline.physics.kernels import parse_kernel
from pipeline.plan import Plan
from pipeline.resolve import Defaults, Limits
from pipeline.survey import survey

LIMITS = Limits(scale=16, kernel=64, lr_pixels=10**6, bytes=10**6)


def plan(folder: Path, *rows: str, model_id: str = "m") -> tuple[Plan, list[str]]:
    (folder / "catalog.csv").write_text("\n".join(("uri,scale,sigma,kernel,phase", *rows)))
    warnings: list[str] = []
    made = survey(
        str(folder / "catalog.csv"),
        str(folder / "out"),
        root=None,
        defaults=Defaults(),
        limits=LIMITS,
        key_template=None,
        encode={"format": "png"},
        model_id=model_id,
        retry_failed="transient",
        wave_items=10**6,
        warn=warnings.append,
    )
    return made.plan(0), warnings


def test_rows_become_items_with_digests_and_bad_rows_failed_outcomes(tmp_path: Path) -> None:
    made, _ = plan(tmp_path, "a.png,2,0,delta,", "b.png,0,0,delta,", "c.png,2,0,gone.npy,")
    (item,) = made.todo
    assert item.uri == str(tmp_path / "a.png")
    assert item.kernel_digest
    assert item.work_id
    assert [outcome.error_code for outcome in made.invalid] == ["bad-scale", "bad-kernel"]


def test_equal_kernels_spelled_differently_are_the_same_work(tmp_path: Path) -> None:
    works = [
        plan(tmp_path, f'a.png,2,0,"{spec}",')[0].todo[0].work_id for spec in ("gaussian(1.5)", " gaussian( 1.50 )")
    ]
    assert works[0] == works[1]


def test_a_kernel_file_that_changed_is_new_work_under_its_old_name(tmp_path: Path) -> None:
    works = []
    for width in (3, 5):
        np.save(tmp_path / "k.npy", np.ones((width, width)))
        works.append(plan(tmp_path, "a.png,2,0,k.npy,")[0].todo[0].work_id)
    assert works[0] != works[1]


def test_a_kernel_file_shifted_already_is_warned_of_once(tmp_path: Path) -> None:
    np.save(tmp_path / "shifted.npy", parse_kernel("gaussian(2)", 3, "center"))
    np.save(tmp_path / "centred.npy", parse_kernel("gaussian(2)"))
    rows = [f"{n}.png,3,0,{name}.npy,center" for n, name in enumerate(("shifted", "centred", "shifted"))]
    _, warnings = plan(tmp_path, *rows, "d.png,3,0,shifted.npy,corner")
    assert len(warnings) == 1
    assert "shifted.npy" in warnings[0]
    assert "set phase to corner" in warnings[0]


def test_a_kernel_file_of_many_kernels_is_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "k.npz", s=np.ones((4, 3, 3)))
    fetched: list[str] = []
    read_bytes = storage.read_bytes
    monkeypatch.setattr(storage, "read_bytes", lambda uri, **more: fetched.append(uri) or read_bytes(uri, **more))
    made, _ = plan(tmp_path, *(f"{n}.png,{1 + n % 3},0,k.npz#s[{n % 4}]," for n in range(24)))
    assert len(made.todo) == 24
    assert len([uri for uri in fetched if uri.endswith("k.npz")]) == 1


@pytest.mark.parametrize("lost", ["out/images/a.png", "out/images/deep/a.png"])
def test_an_archive_among_the_results_is_refused_before_anything_is_overwritten(tmp_path: Path, lost: str) -> None:
    with pytest.raises(ConfigError, match=rf"{lost} lies below .*out/images/.*choose another"):
        plan(tmp_path, "fine.png,2,0,delta,", f"{lost},2,0,delta,")
