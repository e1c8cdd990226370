"""Which cells the tables have, and how they are shown."""

from pipeline.measure.tables import BICUBIC, cells, markdown

PUBLISHED = {"rows": {"x2_noise0": [30.5, 31.25]}, "bicubic_degradation_y_psnr": {"Set5": {"x3": 34.45}}}


def row(table: int, method: str, image: str, score: float, **changes: object) -> dict[str, object]:
    made = {"table": table, "method": method, "scale": 2, "sigma_255": 0.0, "kernel": 1, "image": image}
    return {**made, "psnr_rgb_db": score, "psnr_y_db": score + 1, "ssim_y": score / 100, **changes}


def test_every_method_meets_every_degradation_once() -> None:
    found = cells({BICUBIC: "", "a": "1"}, kernels=12, scales=[2, 3], sigmas=[0.0, 5.0], bicubic_scales=[2, 4])
    assert len(found) == len(set(found)) == 2 * (12 * 2 * 2) + 2 * 2
    assert {cell.kernel for cell in found if cell.table == 2} == {0}


def test_a_line_is_the_mean_over_images_beside_what_was_published() -> None:
    rows = [row(1, "a", "x", 30.0), row(1, "a", "y", 32.0), row(1, BICUBIC, "x", 20.0), row(1, BICUBIC, "y", 22.0)]
    rows += [row(1, m, i, 40.0, kernel=2) for m in ("a", BICUBIC) for i in "xy"]
    lines = markdown(rows, [BICUBIC, "a"], PUBLISHED, "set5").splitlines()
    assert "| scale | sigma | kernel | bicubic PSNR | a PSNR | bicubic SSIM | a SSIM | published |" in lines
    assert "| x2 | 0 | 1 | 21.00 | 31.00 | 0.2100 | 0.3100 | 30.50 |" in lines
    assert "| x2 | 0 | mean | 30.50 | 35.50 | 0.3050 | 0.3550 | 30.88 |" in lines
    assert any("set5, 2 images." in line for line in lines)
    assert not any("Table 2" in line for line in lines)


def test_table_2_shows_y_and_the_figures_of_its_own_set() -> None:
    rows = [row(2, "a", "x", 33.0, scale=3, kernel=0)]
    assert "| x3 | 34.00 | 0.3300 | 34.45 |" in markdown(rows, ["a"], PUBLISHED, "set5")
    assert "| x3 | 34.00 | 0.3300 |\n" in markdown(rows, ["a"], PUBLISHED, "others")


def test_a_degradation_that_was_not_published_has_an_empty_place() -> None:
    rows = [row(1, "a", "x", 30.0, sigma_255=99.0)]
    assert "| x2 | 99 | 1 | 30.00 | 0.3000 |  |" in markdown(rows, ["a"], PUBLISHED, "set5")
