"""What an audit found, in words for a person."""

from typing import Protocol

_MEANING = {
    "waiting": "items of the catalog have no outcome yet; run again",
    "gone": "done items whose object is missing or of another size; run with --verify",
    "orphans": "objects below images/ that no done row names; older outputs, they may be deleted",
    "strangers": "rows of items that the catalog no longer has",
    "doubled": "items with more than one row in a plain read; they settle at the next run's end, or with --compact",
    "shared": "objects that more than one done item names",
    "unfinished": "uploads or temporary files left behind; --compact aborts uploads, hidden .part files may be deleted",
}


class Found(Protocol):
    """What is shown of an audit: counts, and a list of names by each key of `_MEANING`."""

    items: int
    done: int
    failed: int
    parts: int


def findings_words(found: Found, *, show: int) -> str:
    """A line for the whole, and for each kind of finding its count, meaning and the first names."""
    lines = [f"{found.items} items in the catalog, {found.done} done, {found.failed} failed, {found.parts} parts"]
    for kind, meaning in _MEANING.items():
        names: list[str] = getattr(found, kind)
        if names:
            lines.append(f"{len(names):>8} {kind}: {meaning}")
            lines += [f"           {name}" for name in names[:show]]
            lines += [f"           ... and {len(names) - show} more"] if len(names) > show else []
    return "\n".join(lines if len(lines) > 1 else [*lines, "everything is in order"])
