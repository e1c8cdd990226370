"""The lease: only one run at a time works on an output prefix.

    <output>/run/lease/000001.json    who holds it, and how often it has given a sign of life
    <output>/run/lease/000002.json    who took over; the highest number counts

A lease object is created conditionally (S3: If-None-Match:*, local files: a hard link), so of any
number of runs one makes the next number. Its holder rewrites it as heartbeat. A run that finds one
watches it: a sign of life within the time to live means it is held; none, that its holder has died.
Only what the store holds is compared, never two machines' clocks. Knows no Ray.
"""

import json
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from uuid import uuid4

from pipeline import uris
from pipeline.data import storage
from pipeline.errors import LeaseHeld, StorageError
from pipeline.uris import is_local, split_scheme

_BEATS = 4  # heartbeats in a time to live: three may come late
_LOOKS = 12  # looks at another's lease in its time to live
_RACERS, _RACES = 4, 2  # a store that only looks first nearly always lets two of them win in one race
_NAME = re.compile(r"/(\d+)\.json$")
_SETTLING_S = 2.0  # where creation is not conditional: time for the other of two writers to overwrite

NOT_EXCLUSIVE = (
    "warning: this storage does not create objects conditionally, so two runs that start within the "
    "same seconds may both work. Nothing is lost then: every object is written whole under its own "
    "name and the manifest settles on one row an item; but work may be done twice"
)


@dataclass(frozen=True)
class Record:
    """What a lease object says. token: unlike any other's; beat: grows; seconds: the time to live."""

    token: str
    run_id: str
    host: str
    pid: int
    seconds: float
    beat: int = 0
    released: bool = False

    @property
    def holder(self) -> str:
        return f"run {self.run_id} on {self.host} (process {self.pid})"


class Lease:
    """A held lease. `lost` names the run that took over, once one has."""

    def __init__(self, output: str, number: int, record: Record) -> None:
        self._folder, self._number, self._record = folder(output), number, record
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._live, name="lease", daemon=True)
        self.lost: str | None = None
        self._thread.start()

    def release(self) -> None:
        """Say that the holder is gone, so that the next run need not wait."""
        self._done.set()
        self._thread.join(self._record.seconds)
        if self.lost is None:
            with suppress(StorageError):  # the next run then waits for the time to live
                self._write(released=True)

    def _live(self) -> None:
        while not self._done.wait(self._record.seconds / _BEATS):
            with suppress(StorageError):  # a store that is away holds no successor either
                self.beat()

    def beat(self) -> None:
        """One sign of life, unless somebody has taken over."""
        number = highest(self._folder)
        if number > self._number:
            self.lost = _read(self._folder, number).holder
            self._done.set()
        else:
            self._write(beat=self._record.beat + 1)

    def _write(self, **change: object) -> None:
        self._record = replace(self._record, **change)  # type: ignore[arg-type]
        storage.write_bytes(_uri(self._folder, self._number), _bytes(self._record))


@contextmanager
def held(output: str, run_id: str, *, seconds: float, say: Callable[[str], None] = print) -> Iterator[Lease]:
    """The lease of `output` while inside. seconds: its time to live.

    Waits so long for a holder that may have died. Raises `LeaseHeld` naming the holder, and
    `StorageError` when the store cannot be asked.
    """
    lease = acquire(output, run_id, seconds=seconds, say=say)
    try:
        yield lease
    finally:
        lease.release()


def acquire(output: str, run_id: str, *, seconds: float, say: Callable[[str], None] = print) -> Lease:
    """The lease of `output`, as `held` gives it, until it is released."""
    place = folder(output)
    record = Record(uuid4().hex, run_id, socket.gethostname(), os.getpid(), seconds)
    number = highest(place)
    if number:
        _wait_for_silence(place, number, say)
    exclusive = creates_conditionally(place)
    if not exclusive:
        say(NOT_EXCLUSIVE)
    number += 1
    _claim(place, number, record, exclusive)
    for old in range(max(1, number - 3), number):
        storage.delete(_uri(place, old))
    return Lease(output, number, record)


def folder(output: str) -> str:
    """Where the lease objects of `output` lie."""
    return uris.join(output, "run", "lease")


def highest(place: str) -> int:
    """The number that counts; 0 where there is none."""
    names = (_NAME.search(uri) for uri in storage.list_files(place, (".json",)))
    return max((int(name[1]) for name in names if name), default=0)


def creates_conditionally(place: str) -> bool:
    """True if, of writers who create one object at once, the storage lets exactly one win."""
    if is_local(place):
        return True  # hard links are made by one or not at all
    scheme, rest = split_scheme(place)
    return _races_have_one_winner(f"{scheme}://{rest.partition('/')[0]}", place)


_TRIED: dict[str, bool] = {}  # by bucket: what a process has found out does not change under it


def _races_have_one_winner(bucket: str, place: str) -> bool:
    if bucket in _TRIED:
        return _TRIED[bucket]
    won = [storage.winners(uris.join(place, f"probe-{uuid4().hex}"), _RACERS) for _ in range(_RACES)]
    _TRIED[bucket] = max(won) == 1
    return _TRIED[bucket]


def _wait_for_silence(place: str, number: int, say: Callable[[str], None]) -> None:
    """Returns once the lease is free to take. Raises `LeaseHeld` at the first sign of life."""
    first = _read(place, number)
    if first.released:
        return
    say(f"the lease is held by {first.holder}; waiting up to {first.seconds:g} s for a sign of life")
    end = time.monotonic() + first.seconds
    while time.monotonic() < end:
        time.sleep(first.seconds / _LOOKS)
        if highest(place) != number or _read(place, number) != first:
            raise LeaseHeld(f"{first.holder} works on this output; run again when it has ended")
    say(f"{first.holder} gives no sign of life; taking over")


def _claim(place: str, number: int, record: Record, exclusive: bool) -> None:
    """Make the lease object `number`, and make sure that nobody has a higher one."""
    uri = _uri(place, number)
    if exclusive:
        mine = storage.create_bytes(uri, _bytes(record))
    else:
        storage.write_bytes(uri, _bytes(record))
        time.sleep(_SETTLING_S)
        mine = _read(place, number) == record
    latest = highest(place)  # who was slow may have made a number that others are done with
    if not mine or latest > number:
        raise LeaseHeld(f"{_read(place, max(number, latest)).holder} works on this output; it was faster")


def _read(place: str, number: int) -> Record:
    try:
        return Record(**json.loads(storage.read_bytes(_uri(place, number))))
    except StorageError as error:
        if error.code == "input-missing":  # who took over deletes the numbers below
            raise LeaseHeld(f"another run has just taken over {place}; run again when it has ended") from None
        raise
    except (ValueError, TypeError):
        raise LeaseHeld(f"{_uri(place, number)} is no lease of this program; delete it if no run is alive") from None


def _uri(place: str, number: int) -> str:
    return uris.join(place, f"{number:06}.json")


def _bytes(record: Record) -> bytes:
    return json.dumps(asdict(record), indent=1).encode()
