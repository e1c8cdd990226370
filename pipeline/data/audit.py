"""Whether an output is what the manifest says of it."""

import hashlib
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
        data = storage.read_bytes(claim.sr_uri)
    except StorageError as error:
        if error.code == "input-missing":
            return f"{claim.sr_uri} is gone"
        raise
    if claim.bytes is not None and len(data) != claim.bytes:
        return f"{claim.sr_uri} has {len(data)} bytes, the manifest says {claim.bytes}"
    if claim.sha256 is not None and hashlib.sha256(data).hexdigest() != claim.sha256:
        return f"{claim.sr_uri} has other content than the manifest says"
    return None
