"""A folder behind a URI, as a training keeps its states in: names relative to the folder."""

import shutil
from dataclasses import dataclass
from typing import Any

import pyarrow.fs

from pipeline import uris
from pipeline.data import storage


@dataclass(frozen=True)
class StoredFolder:
    """Objects below `uri`, on any storage fsspec knows; every call raises `StorageError`."""

    uri: str

    def names(self, folder: str) -> list[str]:
        """Names of the objects below `folder`, each beginning with it."""
        root = uris.absolute(self.uri)
        found = storage.list_files(uris.join(root, folder))
        return [uri.removeprefix(root).lstrip("/") for uri in found]

    def clear(self, folder: str) -> None:
        """Nothing is left in `folder`; on local disk the folder is gone too."""
        for name in self.names(folder):
            self.delete(name)
        where = uris.join(uris.absolute(self.uri), folder)
        if uris.is_local(where):
            shutil.rmtree(where, ignore_errors=True)

    def check_writable(self) -> None:
        """Raises `StorageError` when nothing can be written here."""
        self.write(".probe", b"")
        self.delete(".probe")

    def for_arrow(self, name: str) -> tuple[Any, str]:
        """Arrow's file system for the folder `name`, and the path in it; local folders come into being."""
        filesystem, path = storage.filesystem(uris.join(uris.absolute(self.uri), name))
        return pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(filesystem)), path

    def read(self, name: str) -> bytes:
        return storage.read_bytes(uris.join(uris.absolute(self.uri), name))

    def write(self, name: str, data: bytes) -> None:
        storage.write_bytes(uris.join(uris.absolute(self.uri), name), data)

    def delete(self, name: str) -> None:
        storage.delete(uris.join(uris.absolute(self.uri), name))
