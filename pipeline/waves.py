"""A catalog that is planned in waves, so that the driver holds the items of one wave and not of the archive.

    one wave    the usual case: the plan is made at once and kept
    several     rows and the manifest's state go to local disk by bucket of the item id; a wave's plan is
                made of its bucket alone, once for the counts and once more when its turn comes

Rows of one id share a bucket, so doubles of ids are found within it. Doubles of output keys are not:
of all keys 64-bit hashes are kept while the rows come in, and the keys whose hash comes more than once
are given, exactly, to the first row that has a right to them.
"""

from array import array
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain

import numpy as np

from pipeline.data import manifest
from pipeline.data.spill import Spill
from pipeline.plan import Counts, Entry, Plan, bucket_of, make_plan, output_keys
from pipeline.records import Item, Known

_ROWS_AT_ONCE = 10_000  # on their way to the disk, of all waves together: some ten MB

Numbered = tuple[int, Entry]  # the row's number, from 0


class Waves:
    """The plans of a catalog, one for each wave, and their counts together.

    resolved: every row in catalog order. output_ending, retry_failed: as of `make_plan`.
    """

    def __init__(
        self, resolved: Iterable[Numbered], output: str, *, number: int, output_ending: str, retry_failed: str
    ) -> None:
        self.number, self.counts = number, Counts()
        self._ending, self._retry_failed = output_ending, retry_failed
        self._owners: Mapping[str, str] = {}
        self._rows, self._known = Spill(), Spill()
        self._only: Plan | None = None
        if number == 1:
            self._only = self._made(resolved, manifest.known(output))
        else:
            self._known = manifest.spilled(output, self._wave_of)
            self._owners = self._owners_of(self._spread(resolved))
        for wave in range(number):
            self.counts.add(self.plan(wave))

    def plan(self, wave: int) -> Plan:
        """What is to do in a wave, from 0; of several it is made anew at each call."""
        if self._only is not None:
            return self._only
        return self._made(self._resolved(wave), manifest.known_in(self._known.get(wave)))

    @property
    def bytes_on_disk(self) -> int:
        return self._rows.size + self._known.size

    def _made(self, resolved: Iterable[Numbered], known: Mapping[str, Known]) -> Plan:
        return make_plan(
            resolved, known, output_ending=self._ending, retry_failed=self._retry_failed, owners=self._owners
        )

    def _wave_of(self, item_id: str) -> int:
        return bucket_of(item_id, self.number)

    def _resolved(self, wave: int) -> Iterator[Numbered]:
        return chain.from_iterable(self._rows.get(wave))

    def _spread(self, resolved: Iterable[Numbered]) -> set[int]:
        """The rows, each into its wave. Returns the hashes of output keys that come more than once."""
        hashes = array("q")
        waiting: list[list[Numbered]] = [[] for _ in range(self.number)]
        for count, (number, entry) in enumerate(resolved, start=1):
            waiting[self._wave_of(entry.item_id)].append((number, entry))
            if isinstance(entry, Item):
                hashes.extend(hash(key) for key in output_keys(entry, self._ending))
            if count % _ROWS_AT_ONCE == 0:
                self._put(waiting)
        self._put(waiting)
        ordered = np.sort(np.frombuffer(hashes, np.int64))
        return set(ordered[1:][ordered[1:] == ordered[:-1]].tolist())

    def _put(self, waiting: list[list[Numbered]]) -> None:
        for wave, rows in enumerate(waiting):
            if rows:
                self._rows.put(wave, rows)
                rows.clear()

    def _owners_of(self, doubled: set[int]) -> dict[str, str]:
        """Whose each output key is, of those that come more than once: the first row's with an id of its own."""
        first: dict[str, tuple[int, str]] = {}
        for wave in range(self.number) if doubled else ():
            seen: set[str] = set()
            for number, entry in self._resolved(wave):
                if isinstance(entry, Item) and entry.item_id not in seen:
                    for key in output_keys(entry, self._ending):
                        if hash(key) in doubled:
                            first[key] = min(first.get(key, (number, entry.item_id)), (number, entry.item_id))
                seen.add(entry.item_id)
        return {key: item_id for key, (_, item_id) in first.items()}
