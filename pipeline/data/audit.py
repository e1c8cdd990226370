"""Whether an output is what the manifest says of it."""

from dataclasses import dataclass

from pipeline.data import storage
from pipeline.errors import StorageError


@dataclass(frozen=True)
class Claim:
    """What the manifest says of a done item's object."""

    item_id: str
    sr_uri: str
    bytes: int | None
    sha256: str | None


def damage(claim: Claim) -> str | None:
    """What is wrong with the object, None if nothing. Raises `StorageError` where that cannot be told."""
    try:
        size = storage.stat(claim.sr_uri).size or 0
        if claim.bytes is not None and size != claim.bytes:
            return f"{claim.sr_uri} has {size} bytes, the manifest says {claim.bytes}"
        if claim.sha256 is not None and storage.sha256(claim.sr_uri, size) != claim.sha256:
            return f"{claim.sr_uri} has other content than the manifest says"
    except StorageError as error:
        if error.code == "input-missing":
            return f"{claim.sr_uri} is gone"
        raise
    return None
