"""Every object below a prefix, in one order on every storage, in memory that does not grow with them.

The order: the files of a folder by name, then its folders by name, each the same way. So two
listings can be compared by walking them side by side. Held at a time: a page of files, and the
names of the folders beside the path that is walked.

Knows no image and no table.
"""

from collections.abc import Callable, Iterator

from pipeline.data.storage import Entry, folder_pages
from pipeline.errors import CatalogError, ItemError
from pipeline.uris import absolute

Key = tuple[tuple[bool, str], ...]


def walk(prefix: str, refused: Callable[[ItemError], None] = lambda _: None) -> Iterator[Entry]:
    """Every object below the folder `prefix`, with its facts. Raises `StorageError`, `CatalogError`.

    refused: is told of folders that no URI can name (control characters, `..`); they are left out.
    """
    folder = absolute(prefix)
    folders: list[str] = []
    last = ""
    for page in folder_pages(folder):
        for entry in sorted(page, key=lambda entry: entry.uri):
            if entry.facts is None:
                folders.append(entry.uri)
                continue
            if entry.uri <= last:
                raise CatalogError(
                    f"{folder}: the storage lists {entry.uri} after {last}; it cannot be indexed in order"
                )
            last = entry.uri
            yield entry
    for below in sorted(folders):
        try:
            absolute(below)
        except ItemError as error:
            refused(error)
        else:
            yield from walk(below, refused)


def order(uri: str, prefix: str) -> Key:
    """Sorts as `walk(prefix)` does; prefix: absolute, without a slash at its end."""
    *folders, name = uri[len(prefix) + 1 :].split("/")
    return (*((True, folder) for folder in folders), (False, name))
