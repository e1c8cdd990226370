"""Charts as SVG written by hand: a few lines each, coloured by the page's own style sheet.

Each chart is one picture to a screen reader, with its message as label; the numbers stand in the
page's tables. Knows no row and no file.
"""

import math
from collections.abc import Callable, Sequence

from markupsafe import Markup, escape

_WIDTH, _HEIGHT = 440, 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 12, 24, 40


def histogram(
    edges: Sequence[float],
    counts: Sequence[int],
    *,
    label: str,
    unit: str,
    logarithmic: bool = False,
    marks: Sequence[tuple[float, str]] = (),
) -> Markup:
    """Bars of counts. marks: (value, name) of vertical lines, the median for instance."""
    top = max(counts)
    x = _axis(edges[0], edges[-1], _LEFT, _WIDTH - _RIGHT, logarithmic)
    y = _axis(0, top, _HEIGHT - _BOTTOM, _TOP)
    bars = [
        _tag(
            "rect",
            f"<title>{_number(a)} to {_number(b)} {_escaped(unit)}: {n:,}</title>",
            cls="bar",
            x=x(a) + 0.5,
            y=y(n),
            width=max(1.0, x(b) - x(a) - 1),
            height=y(0) - y(n),
        )
        for a, b, n in zip(edges, edges[1:], counts, strict=False)
        if n
    ]
    lines = [_mark(x(value), name) for value, name in marks if edges[0] <= value <= edges[-1]]
    ticks = _ticks_log(edges[0], edges[-1]) if logarithmic else _ticks(edges[0], edges[-1])
    return _chart(label, [*_frame(x, y, ticks, _ticks(0, top, 3, whole=True), unit), *bars, *lines])


def area(xs: Sequence[float], ys: Sequence[float], *, label: str, unit: str, x_unit: str) -> Markup:
    """Steps: ys[i] holds from xs[i] to xs[i + 1]; xs has one more."""
    top = max(ys) or 1.0
    x = _axis(xs[0], xs[-1], _LEFT, _WIDTH - _RIGHT)
    y = _axis(0, top, _HEIGHT - _BOTTOM, _TOP)
    path = f"M{x(xs[0]):.1f} {y(0):.1f}"
    for a, b, value in zip(xs, xs[1:], ys, strict=False):
        path += f"L{x(a):.1f} {y(value):.1f}L{x(b):.1f} {y(value):.1f}"
    path += f"L{x(xs[-1]):.1f} {y(0):.1f}Z"
    frame = _frame(x, y, _ticks(xs[0], xs[-1]), _ticks(0, top, 3), x_unit)
    name = _tag("text", _escaped(unit), x=_LEFT + 4, y=_TOP - 6, cls="unit")
    return _chart(label, [*frame, f'<path class="area" d="{path}"/>', name])


def shares(parts: Sequence[tuple[str, float]], *, label: str) -> Markup:
    """One bar cut into named parts; zero parts are left out."""
    total = sum(value for _, value in parts) or 1.0
    pieces, at = [], 0.0
    for number, (name, value) in enumerate(parts):
        width = _WIDTH * value / total
        title = f"<title>{_escaped(name)}: {100 * value / total:.1f}%</title>"
        pieces.append(_tag("rect", title, cls=f"part part-{number}", x=at, y=0, width=max(0.0, width - 2), height=26))
        at += width
    return _chart(label, pieces, height=26)


def _axis(low: float, high: float, begin: float, end: float, logarithmic: bool = False) -> Callable[[float], float]:
    if logarithmic:
        low, high = math.log(low), math.log(high)
    span = (high - low) or 1.0
    return lambda value: begin + (end - begin) * ((math.log(value) if logarithmic else value) - low) / span


def _frame(
    x: Callable[[float], float],
    y: Callable[[float], float],
    x_ticks: Sequence[float],
    y_ticks: Sequence[float],
    unit: str,
) -> list[str]:
    lines = []
    for value in y_ticks:
        lines.append(_tag("line", cls="grid", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=y(value), y2=y(value)))
        lines.append(_tag("text", _number(value), cls="y", x=_LEFT - 6, y=y(value) + 4))
    for value in x_ticks:
        lines.append(_tag("text", _number(value), cls="x", x=x(value), y=_HEIGHT - _BOTTOM + 16))
    lines.append(_tag("text", _escaped(unit), cls="x unit", x=(_LEFT + _WIDTH - _RIGHT) / 2, y=_HEIGHT - 6))
    return lines


def _mark(x: float, name: str) -> str:
    anchor = "end" if x > _WIDTH * 0.75 else "start"
    side = -5 if anchor == "end" else 5
    line = _tag("line", cls="mark", x1=x, x2=x, y1=_TOP - 12, y2=_HEIGHT - _BOTTOM)
    return line + _tag("text", _escaped(name), cls=f"mark {anchor}", x=x + side, y=_TOP - 6)


def _chart(label: str, inside: Sequence[str], height: int = _HEIGHT) -> Markup:
    body = "".join(inside)
    return Markup(
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{_escaped(label)}">{body}</svg>'
    )


def _tag(name: str, inside: str = "", cls: str = "", **attributes: float) -> str:
    numbers = "".join(f' {key}="{value:.1f}"' for key, value in attributes.items())
    return f'<{name} class="{cls}"{numbers}>{inside}</{name}>'


def _ticks(low: float, high: float, about: int = 5, whole: bool = False) -> list[float]:
    """Round values between low and high, about so many."""
    if high <= low:
        return [low]
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
    step = max(1.0, step) if whole else step
    first = math.ceil(low / step - 1e-9)
    return [n * step for n in range(first, math.floor(high / step + 1e-9) + 1)]


def _ticks_log(low: float, high: float) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if math.log10(high / low) < 2.5 else (1,)
    ticks = [m * 10.0**d for d in decades for m in factors if low <= m * 10.0**d <= high]
    return ticks or [low, high]


def _number(value: float) -> str:
    """Three digits: 1,200 or 0.034, never 1e+03."""
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{min(digits, 6)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _escaped(text: str) -> str:
    return str(escape(text))
