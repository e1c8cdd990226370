"""One self-contained HTML file from a template: style, script and pictures inside, nothing fetched.

The page's own policy (CSP) allows exactly this style, this script and pictures that lie in it; a
browser refuses anything else, so a text that came out of an archive can neither run nor call home.
Every value is escaped by the template engine.
"""

import base64
import hashlib
from datetime import datetime
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from pipeline.measure.progress import duration


def page(template: str, *, now: datetime, **values: Any) -> bytes:
    """The template filled in, UTF-8. now: what the page says it was made at, with a time zone."""
    style, script = (_source(name) for name in ("page.css", "page.js"))
    policy = (
        f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    return (
        _environment()
        .get_template(template)
        .render(style=Markup(style), script=Markup(script), policy=policy, made=now, **values)
        .encode("utf-8", "replace")  # a file name may hold what no UTF-8 can
    )


def data_uri(picture: bytes, kind: str = "image/webp") -> str:
    return f"data:{kind};base64,{base64.b64encode(picture).decode()}"


def number(value: float | None, digits: int = 3) -> str:
    """`1,234`, `12.3`, `0.0123`; a dash where there is none."""
    if value is None or value != value:
        return "–"
    if value in (float("inf"), float("-inf")):
        return "∞" if value > 0 else "-∞"
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    text = f"{value:.{digits}g}"
    return f"{float(text):f}".rstrip("0").rstrip(".") if "e" in text else text


def size(count: float | None) -> str:
    """`12.3 MB`, in powers of 1000."""
    if count is None or count != count:
        return "–"
    for unit in ("B", "kB", "MB", "GB", "TB", "PB"):
        if abs(count) < 999.5 or unit == "PB":
            return f"{number(count)} {unit}"
        count /= 1000
    raise AssertionError


def short(uri: str, length: int = 64) -> str:
    """The end of a long URI, from a slash on where that can be."""
    if len(uri) <= length:
        return uri
    tail = uri[-length + 1 :]
    cut = tail.find("/")
    return "…" + (tail[cut:] if 0 <= cut < length // 2 else tail)


def breakable(uri: str) -> Markup:
    """A URI that may go on in the next line after a slash, where that is needed."""
    return escape(uri).replace("/", Markup("/<wbr>"))


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("pipeline.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=number, size=size, short=short, breakable=breakable, duration=duration)
    return environment


def _source(name: str) -> str:
    text = resources.files("pipeline.pages").joinpath("templates", name).read_text(encoding="utf-8")
    return f"\n{text}"


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
