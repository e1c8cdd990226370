"""Sidecars: `a.png.json` or `a.json` beside `a.png`, saying how that image was degraded.

A sidecar is a JSON object whose keys are catalog columns: scale, sigma, kernel, kernel_values,
phase, id, hr_uri. Other keys are somebody else's and left alone. Knows no default and no table.
"""

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from pipeline.data import storage
from pipeline.data.storage import Entry
from pipeline.errors import ItemError

COLUMNS = ("scale", "sigma", "kernel", "kernel_values", "phase", "id", "hr_uri")

_ENDING = ".json"
_LARGEST = 2**24  # bytes; a kernel of 512 x 512 numbers fits


class Paired(NamedTuple):
    """An image and its sidecar, if it has one."""

    image: Entry
    sidecar: Entry | None


def paired(objects: Iterable[Entry], is_image: Callable[[str], bool]) -> Iterator[Paired]:
    """Images with their sidecars. objects: in the order of `listing.walk`, which is kept.

    All names that may belong together begin with the image's name up to its last dot, so they
    stand in one run: an image waits until that run is over. `a.png.json` wins over `a.json`.
    """
    waiting: deque[_Waiting] = deque()
    sidecars: dict[str, Entry] = {}  # by the name they belong to, as long as an image may still come
    for entry in objects:
        yield from _complete(waiting, entry.uri)
        sidecars = {name: sidecar for name, sidecar in sidecars.items() if entry.uri.startswith(name + ".")}
        if entry.uri.lower().endswith(_ENDING):
            name = entry.uri[: -len(_ENDING)]
            sidecars[name] = entry
            for image in waiting:
                image.offer(name, entry)
        elif is_image(entry.uri):
            waiting.append(_Waiting(entry))
            for name, sidecar in sidecars.items():
                waiting[-1].offer(name, sidecar)
    yield from _complete(waiting, "")


@dataclass
class _Waiting:
    image: Entry
    sidecar: Entry | None = None
    exact: bool = False

    @property
    def stem(self) -> str:
        return self.image.uri.rpartition(".")[0]

    def offer(self, stem: str, sidecar: Entry) -> None:
        if stem == self.image.uri:
            self.sidecar, self.exact = sidecar, True
        elif stem == self.stem and not self.exact:
            self.sidecar = sidecar


def _complete(waiting: "deque[_Waiting]", uri: str) -> Iterator[Paired]:
    """The images at the front whose run of names is over when `uri` comes."""
    while waiting and not uri.startswith(waiting[0].stem + "."):
        first = waiting.popleft()
        yield Paired(first.image, first.sidecar)


def read_sidecar(uri: str) -> dict[str, object]:
    """The catalog values of a sidecar. Raises `ItemError` bad-metadata, and `StorageError`."""
    data = storage.read_bytes(uri, max_bytes=_LARGEST)
    try:
        values = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ItemError("bad-metadata", f"the sidecar {uri} is no JSON: {str(error).partition(': ')[0]}") from None
    if not isinstance(values, dict):
        raise ItemError("bad-metadata", f'the sidecar {uri} holds no JSON object; write one like {{"scale": 2}}')
    return {name: values[name] for name in COLUMNS if values.get(name) is not None}
