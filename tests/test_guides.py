"""What the guides say of clusters is what the repository has."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CLUSTER = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
SCALE = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
TINY, FULL, GPU = 0.93, 17.4, 150.0  # TFLOP an HR megapixel, TFLOP/s


@pytest.mark.parametrize("overlay", sorted(p.name for p in (ROOT / "deploy" / "k8s" / "overlays").iterdir()))
def test_every_overlay_stands_in_the_guide(overlay: str) -> None:
    assert f"| `{overlay}` |" in CLUSTER


@pytest.mark.parametrize("path", sorted(set(re.findall(r"(?:deploy|jobs|conf|tests)/[\w/.-]*[\w]", CLUSTER + SCALE))))
def test_every_file_that_the_guides_name_is_there(path: str) -> None:
    assert (ROOT / path).exists()


def test_the_cost_models_figures_follow_from_its_constants() -> None:
    assert f"(tiny {GPU / TINY:.0f}, full {GPU / FULL:.1f})" in SCALE
    assert f"| c |\n| work of the full network | {FULL} TFLOP" in SCALE
    assert f"{1e6 * FULL / GPU / 3600:.0f}" == "32"
    assert f"{1e6 * TINY / GPU / 3600:.1f}" == "1.7"
    rows = re.findall(
        r"^\| ([\d,]+) \| ([\d.,]+) \| ([\d.]+) \| ([\d.]+) ([MG])B/s \| ([\d,]+) \|", SCALE, re.MULTILINE
    )
    assert len(rows) == 4
    for gpus, speed, cores, out, unit, units in rows:
        rate = float(gpus.replace(",", "")) * GPU / FULL
        assert float(speed.replace(",", "")) == pytest.approx(rate, rel=0.01)
        assert float(cores) == pytest.approx(rate * (0.025 + 0.024 / 4), rel=0.15)
        assert float(out) * {"M": 1, "G": 1000}[unit] == pytest.approx(rate * 1.25, rel=0.05)
        assert float(units.replace(",", "")) == pytest.approx(rate / 4, rel=0.1)
