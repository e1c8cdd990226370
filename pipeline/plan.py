"""What a run has to do: catalog rows and the manifest's current state -> work units. Pure.

    resolved  every catalog row as an `Item`, or as an `Outcome` when it cannot become one
    plan      minus what is done, minus failures that wait for a mend, minus doubles
    bucket    of an item id: what does not fit into memory at once is planned bucket by bucket
    units     the rest, sorted by scale and size, cut into what one replica restores in one call, the last finer

Knows no storage, no Ray, no torch.
"""

import hashlib
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TypeVar

from pipeline.errors import ERROR_CODES, TRANSIENT, ItemError
from pipeline.records import DONE, SIGMA_ESTIMATOR, Item, Known, Outcome, failed

T = TypeVar("T")
Entry = Item | Outcome  # a catalog row: to restore, or failed before any work


@dataclass
class Plan:
    """todo: items to restore now. invalid: items that fail before any work, as outcomes to record.

    done, waiting: how many are finished, and how many failed earlier and are not tried again.
    attempts: earlier attempts at the same work, by item id.
    """

    todo: list[Item] = field(default_factory=list)
    invalid: list[Outcome] = field(default_factory=list)
    done: int = 0
    waiting: int = 0
    attempts: dict[str, int] = field(default_factory=dict)

    @property
    def items(self) -> int:
        """Rows of the catalog."""
        return len(self.todo) + len(self.invalid) + self.done + self.waiting


@dataclass
class Counts:
    """How many items of a catalog are what, over all its plans. invalid: by error code."""

    todo: int = 0
    done: int = 0
    waiting: int = 0
    invalid: Counter[str] = field(default_factory=Counter)

    def add(self, plan: Plan) -> None:
        self.todo += len(plan.todo)
        self.done += plan.done
        self.waiting += plan.waiting
        self.invalid.update(outcome.error_code or "internal" for outcome in plan.invalid)

    @property
    def to_account(self) -> int:
        """Items that the run must give an outcome."""
        return self.todo + self.invalid.total()

    @property
    def items(self) -> int:
        """Rows of the catalog."""
        return self.to_account + self.done + self.waiting


def make_plan(
    resolved: Iterable[tuple[int, Entry]],
    current: Mapping[str, Known],
    *,
    output_ending: str,
    retry_failed: str,
    owners: Mapping[str, str] = MappingProxyType({}),
) -> Plan:
    """Sort every catalog row into to do, invalid, done or waiting.

    resolved: with their row's number from 0, in catalog order, work ids set. output_ending: ".png" or
    the like, for output keys. retry_failed: none, transient or all: which earlier failures of the same
    work are tried again. owners: of a catalog planned in buckets, whose id has each output key that
    comes more than once.
    """
    plan, taken = Plan(), _Taken(keys=dict(owners))
    for number, entry in resolved:
        entry = _refuse_doubles(entry, number, taken, output_ending)
        known = current.get(entry.item_id)
        if known is None or known.work_id != entry.work_id:
            _add(plan, entry, attempts=0)
        elif known.status == DONE:
            plan.done += 1
        elif _waits(known, retry_failed):
            plan.waiting += 1
        else:
            _add(plan, entry, known.attempts)
    return plan


def cut_units(items: Sequence[Item], *, megapixels: float, most_items: int) -> Iterator[list[Item]]:
    """Work units: one scale each, alike in size, at most `megapixels` of HR pixels and `most_items`.

    An item larger than `megapixels` is a unit of its own. Items of unknown size come last, by bytes.
    """
    unit: list[Item] = []
    pixels = 0.0
    for item in sorted(items, key=_size_order):
        cost = hr_pixels(item)
        full = len(unit) >= most_items or pixels + cost > megapixels * 1e6
        if unit and (full or item.scale != unit[0].scale):
            yield unit
            unit, pixels = [], 0.0
        unit.append(item)
        pixels += cost
    if unit:
        yield unit


def tapered(units: Sequence[T], workers: int, halves: Callable[[T], list[T]]) -> list[T]:
    """The same work in the same order, in smaller units towards the end, so that workers end together.

    The last two units of each worker are halved, and the last two of each worker then once more.
    """
    cut = list(units)
    for _ in range(2):
        last = cut[-2 * workers :]
        cut[-2 * workers :] = [half for unit in last for half in halves(unit)]
    return cut


def halves(unit: list[Item]) -> list[list[Item]]:
    """Two units of one, where it has two items."""
    middle = (len(unit) + 1) // 2
    return [half for half in (unit[:middle], unit[middle:]) if half]


def bucket_of(item_id: str, buckets: int) -> int:
    """Which of `buckets` an item is planned in. Rows of one id share it, and the names of its doubles."""
    return zlib.crc32(item_id.partition(_ROW)[0].encode("utf-8", "surrogatepass")) % buckets


def split_by_size(items: Sequence[Item], most_hr_pixels: float) -> tuple[list[Item], list[Item]]:
    """Items to restore whole, and those known to be too large for it. The sizes of the rest show at read."""
    whole: list[Item] = []
    large: list[Item] = []
    for item in items:
        known = item.width is not None and item.height is not None
        (large if known and hr_pixels(item) > most_hr_pixels else whole).append(item)
    return whole, large


def hr_pixels(item: Item) -> float:
    """HR pixels of the result; where width and height are unknown, a guess from the object's bytes."""
    if item.width and item.height:
        return float(item.width * item.height * item.scale**2)
    guess = item.size or 250_000  # one byte a pixel is usual for compressed photographs
    return float(guess * item.scale**2)


def work_id(item: Item, *, model_id: str, encode: Mapping[str, object]) -> str:
    """Digest of everything that decides the output: change any of it and the item is redone."""
    content = item.etag or (str(item.size) if item.size is not None else "")
    sigma = SIGMA_ESTIMATOR if item.sigma is None else repr(item.sigma)
    degradation = (item.kernel_digest, sigma, str(item.scale), item.phase)
    settings = [f"{key}={encode[key]}" for key in sorted(encode)]
    return digest(item.item_id, content, *degradation, model_id, *settings)


def digest(*parts: str) -> str:
    """sha256 of the parts, each delimited, as 32 hex digits."""
    whole = "".join(f"{len(part)}:{part}" for part in parts)
    return hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def output_key(item: Item, ending: str) -> str:
    """The item's key below `<output>/images`: mirrors the input; a new format's ending is appended."""
    page = f".page-{item.page}" if item.page else ""
    if ending == SAME_ENDING:
        ending = ENDINGS[named_format(item.key)][0]
    same = item.key.lower().endswith(_ALIASES.get(ending, (ending,)))
    return item.key if same and not page else f"{item.key}{page}{ending}"


def output_keys(item: Item, ending: str) -> list[str]:
    """The keys that its result may have: which of them, its size decides later."""
    return list(dict.fromkeys((output_key(item, ending), output_key(item, LARGE_ENDING))))


def invalid_outcome(error: ItemError, item_id: str, *, uri: str, work_id: str, stage: str = "plan") -> Outcome:
    """The failed row of an item that cannot even be planned."""
    return failed(Outcome(item_id, work_id=work_id, uri=uri), error, stage)


SAME = "same"  # the format that keeps that of the item's name
SAME_ENDING = ".*"
LARGE_ENDING = ".tif"  # of images that are restored by windows, whatever the format of the others
ENDINGS = {
    "png": (".png",),
    "tiff": (".tif", ".tiff"),
    "jpeg": (".jpg", ".jpeg"),
    "webp": (".webp",),
    "avif": (".avif",),
}
_ALIASES = {endings[0]: endings for endings in ENDINGS.values()}


def named_format(key: str) -> str:
    """The format that a key's ending names among those that are written, else png, which loses nothing.

    The name decides, not the content: the plan knows no content, and must know every output key.
    """
    return next((name for name, endings in ENDINGS.items() if key.lower().endswith(endings)), "png")


_ROW = "#row-"  # between the id and the row of a double


@dataclass
class _Taken:
    """The ids of the rows so far, and whose each output key is."""

    ids: set[str] = field(default_factory=set)
    keys: dict[str, str] = field(default_factory=dict)


def _refuse_doubles(entry: Entry, number: int, taken: _Taken, ending: str) -> Entry:
    if entry.item_id in taken.ids:
        error = ItemError("duplicate-id", f"row {number + 1}: an earlier row has the id {entry.item_id!r} as well")
        return _double(entry, error, f"{entry.item_id}{_ROW}{number + 1}")
    taken.ids.add(entry.item_id)
    if isinstance(entry, Item):
        keys = output_keys(entry, ending)
        firsts = [taken.keys.setdefault(key, entry.item_id) for key in keys]
        for key, first in zip(keys, firsts, strict=True):
            if first != entry.item_id:
                as_large = "" if key == keys[0] else "(as a large image, or beside one) "
                error = ItemError(
                    "duplicate-output", f"{entry.item_id!r} would {as_large}overwrite the output {key!r} of {first!r}"
                )
                return _double(entry, error, entry.item_id)
    return entry


def _double(entry: Entry, error: ItemError, item_id: str) -> Outcome:
    return invalid_outcome(error, item_id, uri=entry.uri, work_id=digest(entry.work_id, str(error)))


def _waits(known: Known, retry_failed: str) -> bool:
    if retry_failed == "all":
        return False
    row = ERROR_CODES.get(known.error_code or "internal", ERROR_CODES["internal"])
    return retry_failed == "none" or row.error_class != TRANSIENT


def _add(plan: Plan, entry: Entry, attempts: int) -> None:
    if attempts:
        plan.attempts[entry.item_id] = attempts
    if isinstance(entry, Item):
        plan.todo.append(entry)
    else:
        plan.invalid.append(replace(entry, attempts=attempts + 1))


def _size_order(item: Item) -> tuple[int, bool, float, str]:
    return item.scale, not (item.width and item.height), hr_pixels(item), item.item_id
