"""A prefix of images and sidecars -> a catalog, again and again, reading only what changed.

    walk     every object below the prefix, in order, a page at a time
    pair     images with their sidecars
    compare  side by side with the rows of the last time: new, changed, gone, or just as it was
    read     sidecars (and headers, on request) of what is new or changed, many at a time
    write    rows with their defaults, in parts

Nothing is held but a page, a part, and the reads under way. Knows no Ray, no torch.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from fnmatch import fnmatch
from itertools import groupby
from typing import Any, NamedTuple

from pipeline import uris
from pipeline.data import catalog_parts, storage
from pipeline.data.catalog_parts import Row
from pipeline.data.listing import order, walk
from pipeline.data.peek import header_facts
from pipeline.data.sidecars import Paired, paired, read_sidecar
from pipeline.data.storage import Entry
from pipeline.errors import CatalogError, ItemError
from pipeline.records import checked_scale, checked_sigma, normalized_kernel

SETTINGS = ("scale", "sigma", "kernel", "phase")

_HEADER = ("width", "height", "mode")


@dataclass
class Indexed:
    """What an indexing found. Counts are images; bad: unusable sidecars, and folders that no
    URI can name; problems: the first few of them in words.
    """

    images: int = 0
    new: int = 0
    changed: int = 0
    gone: int = 0
    sidecars_read: int = 0
    headers_read: int = 0
    bad: int = 0
    problems: list[str] = field(default_factory=list)
    rows: int = 0
    parts: int = 0
    parts_written: int = 0

    def refuse(self, problem: object) -> None:
        self.bad += 1
        self.problems = [*self.problems, str(problem)][:5]

    @property
    def unchanged(self) -> int:
        return self.images - self.new - self.changed


class _Known(NamedTuple):
    """An image as found now, and the rows it had the last time (none: it is new)."""

    found: Paired
    rows: Sequence[Row]


def index(
    prefix: str,
    catalog: str,
    *,
    defaults: Mapping[str, object],
    endings: Sequence[str],
    exclude: Sequence[str] = (),
    headers: bool = False,
    readers: int = 32,
    lease_seconds: float = 60.0,
    say: Callable[[str], None] = print,
    seen: Callable[[Indexed], None] = lambda _: None,
) -> Indexed:
    """Bring the catalog folder `catalog` up to what lies below `prefix`.

    defaults: scale, sigma, kernel, phase of images whose sidecar does not say; None leaves it open.
    endings: of image names. exclude: patterns of paths below the prefix (`*` takes slashes too).
    headers: read width, height, mode and pages of new and changed images. lease_seconds: without a
    sign of life after which another indexing is taken for dead. say: is told of waiting for it. seen:
    called an image. Raises `StorageError`, `CatalogError`, and `LeaseHeld` when another indexing is at
    work on this catalog.
    """
    prefix, catalog = uris.absolute(prefix), uris.absolute(catalog)
    if storage.exists(prefix):
        raise CatalogError(f"prefix: {prefix} is an object, not a folder; name the folder that holds the images")
    result = Indexed()
    suffixes = tuple(ending.lower() for ending in endings)
    pairs = paired(_wanted(walk(prefix, result.refuse), prefix, exclude), lambda uri: uri.lower().endswith(suffixes))
    with (
        catalog_parts.writing(catalog, seconds=lease_seconds, say=say) as check,
        ThreadPoolExecutor(readers) as pool,
    ):
        before = catalog_parts.state(catalog)
        known = catalog_parts.rows(catalog, before) if before and before.get("prefix") == prefix else iter(())
        entries = _compared(_in_order(pairs, prefix), known, prefix, result)
        images = _mapped(pool, lambda entry: _rows(entry, headers), entries, 4 * readers)
        rows = _not_all_gone(_counted(images, defaults, result, seen), result)
        result.parts, result.parts_written = catalog_parts.write(
            catalog, _checked(rows, check), before=before, about={"version": 1, "prefix": prefix}
        )
    return result


def _wanted(objects: Iterable[Entry], prefix: str, exclude: Sequence[str]) -> Iterator[Entry]:
    for entry in objects:
        below = entry.uri[len(prefix) + 1 :]
        if not any(fnmatch(below, pattern) for pattern in exclude):
            yield entry


def _in_order(pairs: Iterable[Paired], prefix: str) -> Iterator[Paired]:
    last = None
    for pair in pairs:
        key = order(pair.image.uri, prefix)
        if last is not None and key <= last:
            raise CatalogError(f"{prefix} changed its order while it was listed, at {pair.image.uri}; index again")
        last = key
        yield pair


def _compared(pairs: Iterator[Paired], known: Iterator[Row], prefix: str, result: Indexed) -> Iterator[_Known]:
    """Two sorted streams side by side; what is only among the known is gone."""
    old = groupby(known, lambda row: row["uri"])
    uri, rows = _next(old)
    for pair in pairs:
        key = order(pair.image.uri, prefix)
        while uri is not None and order(uri, prefix) < key:
            result.gone += 1
            uri, rows = _next(old)
        if uri == pair.image.uri:
            yield _Known(pair, rows)
            uri, rows = _next(old)
        else:
            yield _Known(pair, ())
    while uri is not None:
        result.gone += 1
        uri, rows = _next(old)


def _next(groups: Iterator[tuple[str, Iterator[Row]]]) -> tuple[str | None, list[Row]]:
    uri, rows = next(groups, (None, iter(())))
    return uri, list(rows)


class _Image(NamedTuple):
    """The rows of one image without defaults, and what it took to make them."""

    rows: list[Row]
    new: bool
    changed: bool
    sidecar_read: bool
    header_read: bool


def _rows(entry: _Known, headers: bool) -> _Image:
    image, sidecar = entry.found
    first = entry.rows[0] if entry.rows else {}
    facts = image.facts
    etag, size = (facts.etag, facts.size) if facts else (None, None)
    same_image = bool(entry.rows) and (first["etag"], first["size"]) == (etag, size)
    said = (sidecar.uri, sidecar.facts.etag if sidecar.facts else None) if sidecar else (None, None)
    same_sidecar = bool(entry.rows) and (first["sidecar"], first["sidecar_etag"]) == said
    values = _kept(first) if same_sidecar else _read(sidecar)
    header_read = headers and not (same_image and first["mode"] is not None)
    pages = [{n: row[n] for n in ("page", *_HEADER)} for row in entry.rows] if same_image else [{}]
    if header_read:
        pages = _pages(image.uri, size)
    elif not headers and not same_image:
        pages = [{}]
    about = {"uri": image.uri, "etag": etag, "size": size, "sidecar": said[0], "sidecar_etag": said[1]}
    rows = [{**about, **values, **page} for page in pages]
    changed = bool(entry.rows) and not (same_image and same_sidecar)
    return _Image(rows, not entry.rows, changed, bool(sidecar) and not same_sidecar, header_read)


def _kept(row: Row) -> Row:
    """The values that came from the sidecar the last time."""
    names = [name for name in SETTINGS if row[f"{name}_source"] == "sidecar"]
    whole = ["id", "hr_uri", "problem"]
    if row["kernel_values"] is not None:
        names, whole = [*names, "kernel"], [*whole, "kernel_values"]
    return {name: row[name] for name in (*names, *whole)} | {f"{name}_source": "sidecar" for name in names}


def _read(sidecar: Entry | None) -> Row:
    if sidecar is None:
        return {}
    try:
        values = _typed(read_sidecar(sidecar.uri), sidecar.uri)
    except ItemError as error:
        if error.code == "storage-transient":
            raise
        return {"problem": str(error)}
    named = [name for name in SETTINGS if name in values] + ["kernel"] * ("kernel_values" in values)
    return values | {f"{name}_source": "sidecar" for name in named}


def _typed(values: Row, uri: str) -> Row:
    """Values that a catalog's columns can hold; what they mean is checked when the item is planned."""
    try:
        if "scale" in values:
            values["scale"] = checked_scale(values["scale"])
        if "sigma" in values:
            values["sigma"] = checked_sigma(values["sigma"])
        if "kernel_values" in values:
            normalized_kernel(values["kernel_values"])
            values["kernel_values"] = [[float(n) for n in line] for line in values["kernel_values"]]
    except ItemError as error:
        raise ItemError("bad-metadata", f"the sidecar {uri}: {error}") from None
    for name in ("kernel", "phase", "id", "hr_uri"):
        if name in values and not isinstance(values[name], str):
            raise ItemError("bad-metadata", f"the sidecar {uri}: {name} must be text, not {values[name]!r}")
    return values


def _pages(uri: str, size: int | None) -> list[Row]:
    """One row a page; width and height are the first page's. An unreadable header has the mode ""."""
    try:
        facts = header_facts(uri, size)
    except ItemError as error:
        if error.code == "storage-transient":
            raise
        facts = None  # the run will say what is wrong with the image, with its own code
    if facts is None:
        return [{"mode": ""}]
    first: Row = {"width": facts.width, "height": facts.height, "mode": facts.mode}
    if facts.pages == 1:
        return [first]
    return [{**(first if page == 0 else {"mode": facts.mode}), "page": page} for page in range(facts.pages)]


def _counted(
    images: Iterable[_Image], defaults: Mapping[str, object], result: Indexed, seen: Callable[[Indexed], None]
) -> Iterator[Row]:
    for image in images:
        result.images += 1
        result.new += image.new
        result.changed += image.changed
        result.sidecars_read += image.sidecar_read
        result.headers_read += image.header_read
        if problem := image.rows[0].get("problem"):
            result.refuse(problem)
        for row in image.rows:
            result.rows += 1
            yield _with_defaults(row, defaults)
        seen(result)


def _not_all_gone(rows: Iterable[Row], result: Indexed) -> Iterator[Row]:
    """An archive that vanished is rather one that is not mounted, or was renamed."""
    yield from rows
    if result.gone and not result.images:
        what = f"all {result.gone} images of the catalog are gone and there are no others"
        raise CatalogError(f"{what}; correct `prefix`, or delete the catalog if they are meant to be gone")


def _checked(rows: Iterable[Row], check: Callable[[], None]) -> Iterator[Row]:
    """`check` after the last row, before the new state is written."""
    yield from rows
    check()


def _with_defaults(row: Row, defaults: Mapping[str, object]) -> Row:
    for name in SETTINGS:
        if f"{name}_source" not in row and defaults.get(name) is not None:
            row |= {name: defaults[name], f"{name}_source": "default"}
    return row


def _mapped(
    pool: ThreadPoolExecutor, action: Callable[[_Known], _Image], entries: Iterator[_Known], window: int
) -> Iterator[_Image]:
    """`action` of each entry in order, at most `window` of them under way."""
    under_way: deque[Future[Any]] = deque()
    for entry in entries:
        under_way.append(pool.submit(action, entry))
        if len(under_way) >= window:
            yield under_way.popleft().result()
    while under_way:
        yield under_way.popleft().result()
