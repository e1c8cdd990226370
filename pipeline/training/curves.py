"""The curves of a training as one small SVG, and its numbers as CSV.

Knows no torch and draws with nothing but text, so that it works wherever the training does.
"""

from collections.abc import Mapping, Sequence
from html import escape

Point = Mapping[str, float]  # `step` and what was measured there
_Span = tuple[float, float]

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BELOW = 720, 200, 70, 130, 30, 30
_COLOURS = ("#1f6fb4", "#c8502d", "#3a8a3f", "#7a4fa3", "#8a6d1f")
_PANELS = (
    ("loss", ("loss", "l1", "perceptual", "adversarial", "discriminator")),
    ("validation PSNR, dB", ("psnr_db",)),
)


def csv_text(history: Sequence[Point]) -> str:
    """One line a point; a column for everything that was ever measured."""
    columns = list(dict.fromkeys(key for point in history for key in point))
    rows = [",".join(f"{point[key]:.8g}" if key in point else "" for key in columns) for point in history]
    return "\n".join([",".join(columns), *rows]) + "\n"


def svg_text(history: Sequence[Point]) -> str:
    """Loss and validation PSNR over the steps, one panel each; a panel without points is left out."""
    panels = [(title, _lines(history, names)) for title, names in _PANELS]
    panels = [(title, lines) for title, lines in panels if lines]
    size = f'width="{_WIDTH}" height="{max(1, len(panels)) * (_HEIGHT + _TOP + _BELOW)}"'
    body = "".join(_panel(n, title, lines) for n, (title, lines) in enumerate(panels))
    style = "<style>text{font:12px sans-serif;fill:#333}path{fill:none;stroke-width:1.5}</style>"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{style}'
        f'<rect width="100%" height="100%" fill="#fff"/>{body}</svg>\n'
    )


def _lines(history: Sequence[Point], names: Sequence[str]) -> dict[str, list[tuple[float, float]]]:
    """The points of each name, where it is more than one and not the same as the first name's."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for name in names:
        points = [(point["step"], point[name]) for point in history if name in point]
        if points and points not in lines.values():
            lines[name] = points
    return lines


def _panel(number: int, title: str, lines: Mapping[str, list[tuple[float, float]]]) -> str:
    steps = _span([step for points in lines.values() for step, _ in points])
    values = _span([value for points in lines.values() for _, value in points])
    right, bottom = _WIDTH - _RIGHT, _TOP + _HEIGHT
    marks = [
        f'<text x="{_LEFT}" y="{_TOP - 10}">{escape(title)}</text>',
        f'<path d="M{_LEFT} {_TOP}V{bottom}H{right}" stroke="#999"/>',
        *(_mark(_LEFT - 6, _TOP + _HEIGHT * (1 - share) + 4, _at(values, share), "end") for share in (0, 0.5, 1)),
        *(_mark(_LEFT + (right - _LEFT) * share, bottom + 18, _at(steps, share), "middle") for share in (0, 0.5, 1)),
    ]
    for (name, points), colour, row in zip(lines.items(), _COLOURS, range(len(_COLOURS)), strict=False):
        marks.append(f'<path d="{_path(points, steps, values)}" stroke="{colour}"/>')
        y = _TOP + 16 * (row + 1)
        marks.append(f'<text x="{right + 10}" y="{y}" style="fill:{colour}">{escape(name)} {points[-1][1]:.4g}</text>')
    return f'<g transform="translate(0 {number * (_HEIGHT + _TOP + _BELOW)})">{"".join(marks)}</g>'


def _path(points: Sequence[tuple[float, float]], steps: _Span, values: _Span) -> str:
    def place(step: float, value: float) -> str:
        x = _LEFT + _share(steps, step) * (_WIDTH - _RIGHT - _LEFT)
        return f"{x:.1f} {_TOP + (1 - _share(values, value)) * _HEIGHT:.1f}"

    return "M" + "L".join(place(*point) for point in points) + ("h1" if len(points) == 1 else "")


def _span(numbers: Sequence[float]) -> _Span:
    low, high = min(numbers), max(numbers)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _share(span: _Span, value: float) -> float:
    return (value - span[0]) / (span[1] - span[0])


def _at(span: _Span, share: float) -> float:
    return span[0] + share * (span[1] - span[0])


def _mark(x: float, y: float, value: float, anchor: str) -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}">{value:.5g}</text>'
