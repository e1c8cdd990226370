"""One catalog row -> one `Item` with every setting decided, or the reason why that cannot be.

    id, uri, page          who the item is
    scale, sigma, phase    from the row, else from the defaults; the item remembers which
    kernel                 `kernel_values`, else `kernel`, else the default; in its canonical spelling
    key                    where the result goes

Pure: opens nothing. Whether the object exists, and whether a kernel file is sound, is found at
read. Digests (`kernel_digest`, `work_id`) are the plan's business.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeGuard

from pipeline import uris
from pipeline.credentials import MEND as CREDENTIAL_MEND
from pipeline.credentials import holds_secret, shown
from pipeline.errors import ItemError
from pipeline.keys import fill_template
from pipeline.physics.kernels import GRAMMAR, canonical_spec, is_analytic
from pipeline.records import (
    KERNEL_VALUES,
    PHASES,
    SIGMA_AUTO,
    SOURCES,
    Item,
    checked_scale,
    checked_sigma,
    normalized_kernel,
)

Row = Mapping[str, object]

KERNEL_ENDINGS = (".npy", ".npz", ".png", ".mat", ".csv")
_LARGEST_INT64 = 2**63 - 1  # what a column of the manifest can hold


@dataclass(frozen=True)
class Defaults:
    """What an absent catalog value becomes; None: the item fails as missing-metadata.

    kernel: specification or URI. sigma: grey levels of 0-255, or auto. phase: center or corner.
    """

    kernel: str | None = None
    sigma: float | str | None = None
    scale: int | None = None
    phase: str = "center"


@dataclass(frozen=True)
class Limits:
    """What is refused as over-limit.

    scale: largest factor. kernel: largest side, HR pixels. lr_pixels: of the LR image. bytes: of
    the encoded input. allowed_roots: what lies below none of them is refused as not-allowed; None
    allows everything.
    """

    scale: int
    kernel: int
    lr_pixels: int
    bytes: int
    allowed_roots: Sequence[str] | None = None


@dataclass(frozen=True)
class _Setting:
    """A value with its source (one of `SOURCES`) and the name a person knows it by."""

    value: object
    source: str
    name: str


def resolve(row: Row, *, defaults: Defaults, root: str, limits: Limits, key_template: str | None = None) -> Item:
    """The item a catalog row describes.

    row: known columns of the catalog, None where absent. root: URI that relative ones are below.
    key_template: see `pipeline.keys`; None mirrors the path below the root.
    Raises `ItemError`: missing-metadata, bad-metadata, bad-scale, bad-sigma, bad-kernel, over-limit,
    not-allowed.
    """
    uri = _allowed(_uri(row, "uri", root), "uri", limits)
    if (problem := _text(row, "problem")) is not None:
        raise ItemError("bad-metadata", problem)
    page, item_id = _whole(row, "page", least=0) or 0, _item_id(row, uri)
    scale, scale_source = _scale(row, defaults, limits)
    sigma, sigma_source = _sigma(row, defaults)
    phase, phase_source = _phase(row, defaults)
    values = _kernel_values(row, limits)
    kernel, kernel_source = (
        (KERNEL_VALUES, _source(row, "kernel")) if values else _kernel(row, defaults, root, scale, limits)
    )
    width, height, size = _extent(row, limits)
    key = _output_key(uri, root, key_template, item_id, scale, page)
    return Item(
        item_id=item_id,
        uri=uri,
        key=key,
        scale=scale,
        sigma=sigma,
        kernel=kernel,
        phase=phase,
        page=page,
        kernel_values=values,
        width=width,
        height=height,
        etag=_text(row, "etag"),
        size=size,
        hr_uri=_hr_uri(row, root, limits),
        scale_source=scale_source,
        sigma_source=sigma_source,
        kernel_source=kernel_source,
        phase_source=phase_source,
    )


def item_id_of(row: Row, root: str, number: int) -> str:
    """The id `resolve` gives, or would give if the rest of the row were sound; never fails.

    number: of the row in the catalog, from 0; one that names no usable uri becomes `row-<number + 1>`.
    """
    try:
        return _item_id(row, uri_of(row, root))
    except ItemError:
        return f"row-{number + 1}"


def uri_of(row: Row, root: str) -> str:
    """The absolute uri of a row for the manifest, or "" if it names none that may be written there."""
    try:
        return _uri(row, "uri", root)
    except ItemError:
        return ""


@lru_cache(1024)  # an archive shares few kernels among many images, and so they share one text too
def checked_kernel(spec: str) -> str:
    """The canonical spelling of an analytic kernel; the URI of a kernel file as it is.

    Raises `ItemError` bad-kernel for what is neither.
    """
    if is_analytic(spec):
        return canonical_spec(spec)
    if not _file_of(spec).lower().endswith(KERNEL_ENDINGS):
        files = f"the URI of a file ending in {', '.join(KERNEL_ENDINGS)}"
        raise ItemError("bad-kernel", f"{shown(spec)} is neither one of {GRAMMAR} nor {files}")
    return spec


def _uri(row: Row, name: str, root: str) -> str:
    uri = _text(row, name)
    if uri is None:
        raise ItemError("missing-metadata", f"the catalog row has no `{name}`; give the image's URI")
    return _absolute(uri, root, f"catalog column `{name}`")


def _absolute(uri: str, root: str, name: str, code: str = "bad-metadata") -> str:
    if holds_secret(uri):
        raise ItemError(code, f"{name} holds a credential; {CREDENTIAL_MEND}")
    try:
        return uris.absolute(uri, root)
    except ItemError as error:
        raise ItemError(code, f"{name}: {error}") from None


def _hr_uri(row: Row, root: str, limits: Limits) -> str | None:
    return None if row.get("hr_uri") is None else _allowed(_uri(row, "hr_uri", root), "hr_uri", limits)


def _allowed(uri: str, name: str, limits: Limits) -> str:
    """`uri` itself, if it lies below one of `limits.allowed_roots`."""
    roots = limits.allowed_roots
    if roots is None or any(_is_below(uri, uris.absolute(root)) for root in roots):
        return uri
    places = ", ".join(roots)
    raise ItemError("not-allowed", f"`{name}` is {uris.without_query(uri)}; `limits.allowed_roots` has {places}")


def _is_below(uri: str, root: str) -> bool:
    return uri == root or uri.startswith(f"{root.rstrip('/')}/")


def _item_id(row: Row, uri: str) -> str:
    """The row's own id, else its uri; a page that is no page stays visible in it, to collide with none."""
    given, page = row.get("id"), row.get("page")
    if isinstance(given, int) and not isinstance(given, bool):
        given = str(given) if abs(given) <= _LARGEST_INT64 else given
    if (item_id := _text({"id": given}, "id")) is not None:
        if holds_secret(item_id):
            raise ItemError("bad-metadata", f"catalog column `id` holds a credential; {CREDENTIAL_MEND}")
        return item_id
    if not uri:
        raise ItemError("missing-metadata", "the catalog row has neither `id` nor a usable `uri`")
    number = _as_whole(page)
    if page is None or number == 0:
        return uri
    return f"{uri}#page={shown(page) if number is None else number}"


def _scale(row: Row, defaults: Defaults, limits: Limits) -> tuple[int, str]:
    setting = _setting(row, defaults, "scale")
    whole = _as_whole(setting.value)
    if whole is not None and whole > limits.scale:
        _refuse(f"{setting.name} is {shown(whole)}", "scale", limits.scale)
    try:
        return checked_scale(setting.value), setting.source
    except ItemError as error:
        raise ItemError(error.code, f"{setting.name}: {error}") from None


def _sigma(row: Row, defaults: Defaults) -> tuple[float | None, str]:
    setting = _setting(row, defaults, "sigma")
    if setting.value == SIGMA_AUTO:
        return None, "estimated"
    try:
        return checked_sigma(setting.value), setting.source
    except ItemError as error:
        raise ItemError(error.code, f"{setting.name}: {error}") from None


def _phase(row: Row, defaults: Defaults) -> tuple[str, str]:
    setting = _setting(row, defaults, "phase")
    if setting.value not in PHASES:
        choices = " or ".join(PHASES)
        raise ItemError("bad-metadata", f"{setting.name} must be {choices}, not {shown(setting.value)}")
    return str(setting.value), setting.source


def _kernel(row: Row, defaults: Defaults, root: str, scale: int, limits: Limits) -> tuple[str, str]:
    setting = _setting(row, defaults, "kernel")
    if not isinstance(setting.value, str):
        allowed = f"text ({GRAMMAR}, or a URI)"
        raise ItemError("bad-kernel", f"{setting.name} must be {allowed}, not {shown(setting.value)}")
    try:
        kernel = checked_kernel(_clean(setting.value, setting.name))
    except ItemError as error:
        raise ItemError("bad-kernel", f"{setting.name}: {error}") from None
    if not is_analytic(kernel):
        file = _file_of(kernel)
        whole = _allowed(_absolute(file, root, setting.name, "bad-kernel"), "kernel", limits)
        return whole + kernel[len(file) :], setting.source
    if (extent := _extent_of(kernel, scale)) > limits.kernel:
        _refuse(f"{setting.name} spans {extent:g} HR pixels", "kernel", limits.kernel)
    return kernel, setting.source


def _kernel_values(row: Row, limits: Limits) -> list[list[float]] | None:
    values = row.get("kernel_values")
    if values is None:
        return None
    try:
        if not _is_table_of_numbers(values):
            raise ItemError("bad-kernel", f"it must be a list of lists of numbers, not {shown(values)}")
        kernel = [[float(number) for number in line] for line in values]
        normalized_kernel(kernel)
    except OverflowError:
        raise ItemError("bad-kernel", f"{_VALUES} holds a number beyond a float's range") from None
    except ItemError as error:
        raise ItemError(error.code, f"{_VALUES}: {error}") from None
    if (side := max(len(kernel), len(kernel[0]))) > limits.kernel:
        _refuse(f"{_VALUES} spans {side} HR pixels", "kernel", limits.kernel)
    return kernel


_VALUES = "catalog column `kernel_values`"


def _is_table_of_numbers(values: object) -> TypeGuard[list[list[float]]]:
    if not isinstance(values, list) or not all(isinstance(line, list) for line in values):
        return False
    return all(isinstance(n, (int, float)) and not isinstance(n, bool) for line in values for n in line)


def _extent(row: Row, limits: Limits) -> tuple[int | None, int | None, int | None]:
    """width, height (LR pixels) and size (bytes), as far as the catalog knows them."""
    width, height, size = _whole(row, "width", 1), _whole(row, "height", 1), _whole(row, "size", 0)
    if (width or 1) * (height or 1) > limits.lr_pixels:
        _refuse(f"the image has {width or '?'} x {height or '?'} pixels", "lr_pixels", limits.lr_pixels)
    if (size or 0) > limits.bytes:
        _refuse(f"the object has {size} bytes", "bytes", limits.bytes)
    return width, height, size


def _output_key(uri: str, root: str, template: str | None, item_id: str, scale: int, page: int) -> str:
    mirrored = uris.mirrored_key(uri, root)
    if template is None:
        return mirrored
    return fill_template(template, mirrored=mirrored, item_id=item_id, scale=scale, page=page)


def _setting(row: Row, defaults: Defaults, name: str) -> _Setting:
    if (value := row.get(name)) is not None:
        return _Setting(value, _source(row, name), f"catalog column `{name}`")
    if (value := getattr(defaults, name)) is not None:
        return _Setting(value, "default", f"`defaults.{name}`")
    raise ItemError(
        "missing-metadata",
        f"there is no `{name}`: add it to the catalog, or set `defaults.{name}` for all items without one",
    )


def _source(row: Row, name: str) -> str:
    """Where an indexed catalog has a value from; else the catalog itself is the source."""
    source = row.get(f"{name}_source")
    return source if isinstance(source, str) and source in SOURCES else "catalog"


def _text(row: Row, name: str) -> str | None:
    value = row.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise ItemError("bad-metadata", f"catalog column `{name}` must be text, not {shown(value)}")
    return _clean(value, f"catalog column `{name}`")


def _clean(text: str, name: str) -> str:
    """`text` itself, if a file system and an Arrow column can hold it."""
    if not text.strip() or "\0" in text or not _is_unicode(text):
        raise ItemError("bad-metadata", f"{name} is blank or no valid Unicode text: {shown(text)}")
    return text


def _is_unicode(text: str) -> bool:
    """False for lone surrogates, which JSON can spell and no file can hold."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def _whole(row: Row, name: str, least: int) -> int | None:
    value = row.get(name)
    if value is None:
        return None
    number = _as_whole(value)
    if number is None or not least <= number <= _LARGEST_INT64:
        message = f"catalog column `{name}` must be a whole number >= {least}, not {shown(value)}"
        raise ItemError("bad-metadata", message)
    return number


def _as_whole(value: object) -> int | None:
    """2 for 2 and for 2.0, None for anything else that is no whole number."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    return int(value) if isinstance(value, float) and value.is_integer() else None


def _file_of(kernel_uri: str) -> str:
    """Without the `#name[3]` that picks one kernel of a file."""
    return kernel_uri.partition("#")[0]


def _extent_of(canonical: str, scale: int) -> float:
    """A lower bound of an analytic kernel's side in HR pixels: enough to refuse what would fill the
    memory before it is computed. The exact side is checked where the kernel is made.
    """
    name, _, inside = canonical.partition("(")
    lengths = [float(number) for number in inside.rstrip(")").split(",")] if inside else [0.0]
    factor = {"gaussian": 8.0, "disk": 2.0, "motion": 1.0}.get(name, 0.0)
    spread = max(lengths[:2]) if len(lengths) == 3 else lengths[0]
    return 4.0 * (scale - 1) if name == "bicubic" else factor * spread


def _refuse(what: str, limit: str, value: int) -> None:
    raise ItemError("over-limit", f"{what}; `limits.{limit}` allows {value}")
