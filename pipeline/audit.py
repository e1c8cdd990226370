"""What an archive's catalog, manifest and objects say of each other. No Ray, no torch.

waiting     items of the catalog without a current outcome
gone        done items whose object is not there, or has another size than the manifest says
orphans     objects below images/ that no done row names
strangers   rows of items that the catalog no longer has
doubled     items of which a plain read of the manifest shows more than one row
shared      objects that more than one done item names
unfinished  uploads and temporary files that were left behind
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from pipeline import uris
from pipeline.data import localfiles, manifest, storage, upkeep, uploads
from pipeline.data.catalog import catalog_root, read_catalog
from pipeline.records import DONE
from pipeline.resolve import item_id_of

FINDINGS = ("waiting", "gone", "orphans", "strangers", "doubled", "shared", "unfinished")


@dataclass
class Audit:
    """Counts, and who is concerned by each kind of finding."""

    items: int = 0
    done: int = 0
    failed: int = 0
    parts: int = 0
    waiting: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    shared: list[str] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)

    @property
    def in_order(self) -> bool:
        """Every item has one outcome, every done output is there. Orphans and strangers do no harm."""
        return not (self.waiting or self.gone or self.doubled or self.shared)


def audit(catalog: str, output: str, *, root: str | None = None) -> Audit:
    """Compare them by names and sizes; what is in the objects is not read.

    Raises `CatalogError` where there is no usable catalog, `StorageError` where the storage fails.
    """
    found = Audit(parts=len(manifest.parts(output)))
    ids = _catalog_ids(catalog, root)
    found.items = len(ids)
    rows = manifest.current(output).select(["item_id", "status", "sr_uri", "output_bytes"]).to_pydict()
    status = dict(zip(rows["item_id"], rows["status"], strict=True))
    found.waiting = [item for item in ids if item not in status]
    found.strangers = sorted(status.keys() - set(ids))
    found.done = sum(state == DONE for state in status.values())
    found.failed = len(status) - found.done
    found.doubled = upkeep.doubled(output)
    done = [pair for pair in zip(*rows.values(), strict=True) if pair[1] == DONE]
    _compare_objects(found, output, [(item, uri, size) for item, _, uri, size in done])
    found.unfinished += uploads.unfinished(uris.join(output, "images"))
    return found


def _catalog_ids(catalog: str, root: str | None) -> list[str]:
    """Item ids in the catalog's order; an id that comes again is its row's, as the plan has it."""
    below = catalog_root(catalog, root)
    seen: set[str] = set()

    def ids() -> Iterator[str]:
        for number, row in enumerate(read_catalog(catalog)):
            item = item_id_of(row, below, number)
            yield f"{item}#row-{number + 1}" if item in seen else item
            seen.add(item)

    return list(ids())


def _compare_objects(found: Audit, output: str, done: list[tuple[str, str, int | None]]) -> None:
    named = Counter(uri for _, uri, _ in done)
    found.shared = sorted(uri for uri, count in named.items() if count > 1)
    sizes: dict[str, int | None] = {}
    for uri, facts in storage.list_objects(uris.join(output, "images")):
        if localfiles.is_temporary(uri):
            found.unfinished.append(uri)
        elif uri in named:
            sizes[uri] = facts.size
        else:
            found.orphans.append(uri)
    found.gone = [item for item, uri, size in done if uri not in sizes or (size is not None and sizes[uri] != size)]
