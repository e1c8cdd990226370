"""The paper's tables as work to do and as Markdown: which cells there are, and how they are shown.

A cell is one method on one degradation over all images. Knows no file, no network, no Ray.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

BICUBIC = "bicubic"

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Cell:
    """table: 1 or 2. kernel: its number from 1 in Table 1, 0 in Table 2. method: `bicubic` or a
    name of weights; model_id: their digest, or "".
    """

    table: int
    method: str
    model_id: str
    scale: int
    sigma_255: float
    kernel: int


def cells(
    methods: Mapping[str, str],
    *,
    kernels: int,
    scales: Sequence[int],
    sigmas: Sequence[float],
    bicubic_scales: Sequence[int],
) -> list[Cell]:
    """Every cell of both tables. methods: model id by name. kernels: how many Table 1 has."""
    first = [
        Cell(1, name, model_id, scale, float(sigma), number + 1)
        for scale in scales
        for sigma in sigmas
        for number in range(kernels)
        for name, model_id in methods.items()
    ]
    second = [Cell(2, name, model_id, scale, 0.0, 0) for scale in bicubic_scales for name, model_id in methods.items()]
    return first + second


def markdown(rows: Iterable[Row], methods: Sequence[str], published: Mapping[str, Any] | None, images: str) -> str:
    """Both tables. rows: one a cell and image. images: name of the set. published: see conf/evaluate.yaml."""
    found: dict[tuple[int, int, float, int], dict[str, list[Row]]] = {}
    count: set[str] = set()
    for row in rows:
        key = (row["table"], row["scale"], row["sigma_255"], row["kernel"])
        found.setdefault(key, {}).setdefault(row["method"], []).append(row)
        count.add(row["image"])
    about = f"{images}, {len(count)} images."
    lines = [*_table1(found, methods, published or {}, about), *_table2(found, methods, published or {}, images, about)]
    return "\n".join(lines) + "\n"


def _table1(found: Any, methods: Sequence[str], published: Mapping[str, Any], about: str) -> Iterator[str]:
    ours = {key: by_method for key, by_method in found.items() if key[0] == 1}
    if not ours:
        return
    theirs: Mapping[str, Sequence[float]] = published.get("rows", {})
    columns = [f"{name} PSNR" for name in methods] + [f"{name} SSIM" for name in methods]
    yield from ("## Table 1: RGB PSNR in dB, SSIM of Y", "", f"{about} Published: the full model on BSD68.", "")
    yield from _head(["scale", "sigma", "kernel", *columns, *["published"] * bool(theirs)], left=3)
    for scale, sigma in dict.fromkeys((key[1], key[2]) for key in sorted(ours)):
        values = []
        beside = theirs.get(f"x{scale}_noise{sigma:g}", ())
        keys = sorted(key for key in ours if key[1:3] == (scale, sigma))
        if len(beside) != len(keys):
            beside = ()  # other kernels than the published ones, so which figure is whose?
        for key in keys:
            by = ours[key]
            number = [beside[key[3] - 1] if key[3] <= len(beside) else None] if theirs else []
            values.append([*_means(by, methods, "psnr_rgb_db"), *_means(by, methods, "ssim_y"), *number])
            yield _line([f"x{scale}", f"{sigma:g}", str(key[3])], values[-1], len(methods))
        mean = [_mean([line[n] for line in values]) for n in range(len(values[0]))]
        yield _line([f"x{scale}", f"{sigma:g}", "mean"], mean, len(methods))
    yield ""


def _table2(found: Any, methods: Sequence[str], published: Mapping[str, Any], images: str, about: str) -> Iterator[str]:
    ours = {key: by_method for key, by_method in found.items() if key[0] == 2}
    if not ours:
        return
    sets: Mapping[str, Mapping[str, float]] = published.get("bicubic_degradation_y_psnr", {})
    theirs = next((values for name, values in sets.items() if name.lower() == images.lower()), {})
    columns = [f"{name} PSNR" for name in methods] + [f"{name} SSIM" for name in methods]
    said = " Published: the full model." if theirs else ""
    yield from ("## Table 2: bicubic degradation, PSNR of Y in dB, SSIM of Y", "", f"{about}{said}", "")
    yield from _head(["scale", *columns, *["published"] * bool(theirs)], left=1)
    for key in sorted(ours):
        number = [theirs.get(f"x{key[1]}")] if theirs else []
        values = [*_means(ours[key], methods, "psnr_y_db"), *_means(ours[key], methods, "ssim_y"), *number]
        yield _line([f"x{key[1]}"], values, len(methods))
    yield ""


def _means(by_method: Mapping[str, Sequence[Row]], methods: Sequence[str], name: str) -> list[float | None]:
    return [_mean([row[name] for row in by_method.get(method, ())]) for method in methods]


def _mean(values: Sequence[float | None]) -> float | None:
    """None where something is missing: the mean of a part would be another figure."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known and len(known) == len(values) else None


def _head(names: Sequence[str], left: int) -> Iterator[str]:
    yield f"| {' | '.join(names)} |"
    yield "|" + "---|" * left + "---:|" * (len(names) - left)


def _line(labels: Sequence[str], values: Sequence[float | None], methods: int) -> str:
    digits = [2] * methods + [4] * methods + [2] * (len(values) - 2 * methods)
    shown = ["" if value is None else f"{value:.{n}f}" for value, n in zip(values, digits, strict=True)]
    return f"| {' | '.join([*labels, *shown])} |"
