"""Output keys made by a template (`encode.key`): where a result lies below `<output>/images/`.

    {key}      the default: the path below the catalog's root, a/b.jpg
    {dir}      its folder, a            {stem}   its name without the ending, b
    {item_id}  the item's id, with :// written as /
    {scale}    the super-resolution factor
    {page}     the page of the file; {page:04d} pads it

Pure text: knows no storage and no image format.
"""

from posixpath import basename, dirname, splitext
from string import Formatter

from pipeline.errors import ItemError

FIELDS = ("key", "stem", "dir", "item_id", "scale", "page")
_DISTINGUISHING = ("key", "stem", "item_id")  # the others are alike for whole folders of items


def checked_template(template: str) -> str:
    """`template` itself, or ValueError saying what is wrong with it and what is allowed."""
    known = ", ".join(f"{{{name}}}" for name in FIELDS)
    names = _field_names(template, known)
    for name in names:
        if name not in FIELDS:
            raise ValueError(f"must use only the fields {known}; it has {{{name}}}")
    if not set(names) & set(_DISTINGUISHING):
        raise ValueError("must tell items apart: use at least one of {key}, {stem} or {item_id}")
    try:
        fill_template(template, mirrored="a/b.png", item_id="a/b.png", scale=2, page=0)
    except (ValueError, LookupError) as error:
        raise ValueError(f"must be a template like '{{dir}}/{{stem}}_x{{scale}}': {error}") from None
    except ItemError as error:
        raise ValueError(f"must give a plain relative path: {error}") from None
    return template


def fill_template(template: str, *, mirrored: str, item_id: str, scale: int, page: int) -> str:
    """The output key of one item. mirrored: its default key.

    An empty {dir} leaves no leading slash. Raises `ItemError` bad-metadata where the values make
    no plain relative path.
    """
    name = basename(mirrored)
    key = template.format(
        key=mirrored,
        stem=splitext(name)[0],
        dir=dirname(mirrored),
        item_id=item_id.replace("://", "/"),
        scale=scale,
        page=page,
    )
    return _plain_path(key)


def _field_names(template: str, known: str) -> list[str]:
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"must be text with fields of {known}: {error}") from None
    if any(conversion for *_, conversion in parts):
        raise ValueError(f"must not convert fields with '!'; the fields are {known}")
    return [name for _, name, *_ in parts if name is not None]


def _plain_path(key: str) -> str:
    parts = [part for part in key.split("/") if part]
    if not parts or key.endswith("/") or any(part in (".", "..") for part in parts) or "\0" in key:
        message = f"encode.key gives {key!r}, which must end in a name and hold no '.' or '..'"
        raise ItemError("bad-metadata", message)
    return "/".join(parts)
