"""Where a training keeps itself: numbered states of which the newest are kept, weights, curves.

    state/00000100.pt    everything to go on from step 100
    usrnet.safetensors   the averaged weights (usrgan.safetensors after a GAN phase)
    history.csv          what every progress line showed
    curves.svg           the same as a picture

A `Store` is a folder somewhere; the one on local disk is here and needs nothing but Python, the one
behind a URI is `pipeline.data.folder`.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from uuid import uuid4

_STATE = re.compile(r"state/(\d{8,})\.pt")


class Store(Protocol):
    """Named objects below one place, each written at once or not at all."""

    def names(self, folder: str) -> list[str]:
        """Names of the objects in `folder`, each beginning with it; empty when there is none."""

    def read(self, name: str) -> bytes: ...

    def write(self, name: str, data: bytes) -> None: ...

    def delete(self, name: str) -> None:
        """There is no such object any more, whether or not there was."""


@dataclass(frozen=True)
class LocalFolder:
    """A `Store` on local disk."""

    root: Path

    def names(self, folder: str) -> list[str]:
        there = self.root / folder
        return sorted(f"{folder}/{file.name}" for file in there.iterdir()) if there.is_dir() else []

    def read(self, name: str) -> bytes:
        return (self.root / name).read_bytes()

    def write(self, name: str, data: bytes) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{uuid4().hex}.part")
        with part.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)

    def delete(self, name: str) -> None:
        (self.root / name).unlink(missing_ok=True)


@dataclass(frozen=True)
class States:
    """The numbered states in a store; `keep` of them, so that one damaged by a crash does not end all."""

    store: Store
    keep: int = 3

    def save(self, step: int, data: bytes) -> None:
        self.store.write(f"state/{step:08}.pt", data)
        for name in self._names()[self.keep :]:
            self.store.delete(name)

    def newest_first(self) -> Iterator[tuple[str, bytes]]:
        return ((name, self.store.read(name)) for name in self._names())

    def _names(self) -> list[str]:
        found = [(int(match[1]), name) for name in self.store.names("state") if (match := _STATE.fullmatch(name))]
        return [name for _, name in sorted(found, reverse=True)]
