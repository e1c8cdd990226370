"""Every error Unfold raises on purpose, and what each one asks of the person who reads it.

    UnfoldError
    ├── ConfigError      a key of the configuration is wrong            -> exit 2
    ├── CatalogError     the catalog as a whole cannot be used          -> exit 2
    ├── WeightsError     a checkpoint cannot be read or does not fit    -> exit 2
    ├── NotFinished      the run had to stop early and can be resumed   -> exit 4
    ├── LeaseHeld        another run is working on this output          -> exit 5
    └── ItemError        one item cannot be restored                    -> one failed row
        └── StorageError   an object cannot be read or written

An `ItemError` carries one of the codes of `ERROR_CODES`; the code decides whether the next run
tries again (transient) or waits for somebody to mend the input (permanent).

This module imports nothing.
"""

from dataclasses import dataclass

TRANSIENT = "transient"
PERMANENT = "permanent"


class UnfoldError(Exception):
    """Base of all errors raised on purpose; its text is fit to be shown without a traceback."""


class ConfigError(UnfoldError):
    """A configuration key is unknown, missing or has a wrong value; the text names key and mend."""


class CatalogError(UnfoldError):
    """The catalog cannot be read as a table, or lacks a required column."""


class WeightsError(UnfoldError):
    """A checkpoint cannot be read, would need unpickling code, or does not fit USRNet."""


class NotFinished(UnfoldError):
    """The run stopped before all items had an outcome; running again goes on where it stopped."""


class LeaseHeld(UnfoldError):
    """Another run holds the lease of this output prefix; the text names the holder."""


class ItemError(UnfoldError):
    """One item cannot be restored. `code` is a key of `ERROR_CODES`."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = ERROR_CODES[code].code

    def __reduce__(self) -> tuple[type["ItemError"], tuple[str, str]]:
        return type(self), (self.code, str(self))  # it crosses processes; by default the code is lost


class StorageError(ItemError):
    """An object could not be read or written. `code` says whether a later try may succeed."""


@dataclass(frozen=True)
class ErrorCode:
    """One row of the table of failures shown to users: its class, meaning and mend."""

    code: str
    error_class: str
    meaning: str
    mend: str


ERROR_CODES: dict[str, ErrorCode] = {
    row.code: row
    for row in (
        ErrorCode(
            "missing-metadata",
            PERMANENT,
            "uri, kernel, scale or sigma is neither in the catalog nor in `defaults`",
            "add the column to the catalog, or set `defaults.kernel`, `.scale`, `.sigma`",
        ),
        ErrorCode(
            "bad-metadata",
            PERMANENT,
            "a catalog value has a wrong type or an illegal value (uri, phase, page, width, ...)",
            "correct the value named in the message",
        ),
        ErrorCode(
            "bad-kernel",
            PERMANENT,
            "the kernel cannot be parsed, read, or is not a finite 2-D array with non-zero sum",
            "correct the kernel specification or file",
        ),
        ErrorCode(
            "bad-scale",
            PERMANENT,
            "the scale is not a whole number >= 1",
            "give an integer scale; 1 deblurs without enlarging",
        ),
        ErrorCode(
            "bad-sigma",
            PERMANENT,
            "the noise level is not a finite number between 0 and 255",
            "give the noise standard deviation in grey levels of 0-255",
        ),
        ErrorCode(
            "over-limit",
            PERMANENT,
            "the image, kernel or scale exceeds `limits`",
            "raise the limit named in the message, or cut the image",
        ),
        ErrorCode(
            "not-allowed",
            PERMANENT,
            "the uri of the image, kernel or ground truth lies outside `limits.allowed_roots`",
            "correct the uri, or add its place to `limits.allowed_roots`",
        ),
        ErrorCode(
            "duplicate-id",
            PERMANENT,
            "an earlier row of the catalog has the same item id",
            "give each row its own `id`, or remove the double",
        ),
        ErrorCode(
            "duplicate-output",
            PERMANENT,
            "an earlier item would be written to the same output key",
            "rename one of the two, or set `encode.key`",
        ),
        ErrorCode(
            "input-missing",
            PERMANENT,
            "there is no object at the item's uri",
            "restore the object or remove the row",
        ),
        ErrorCode("input-empty", PERMANENT, "the object has zero bytes", "upload the image again"),
        ErrorCode(
            "input-changed",
            PERMANENT,
            "the object is not the one the catalog describes (size or etag differ)",
            "index the archive again, then run again",
        ),
        ErrorCode(
            "not-an-image",
            PERMANENT,
            "the bytes are in no image format known here",
            "remove the row, or convert the file",
        ),
        ErrorCode(
            "corrupt-image",
            PERMANENT,
            "the image is damaged or cut short",
            "replace the file by a sound copy",
        ),
        ErrorCode(
            "unsupported-mode",
            PERMANENT,
            "the image's mode or bit depth cannot be kept without loss",
            "follow the message: convert the image, or choose another `encode.format`",
        ),
        ErrorCode("bad-page", PERMANENT, "the file has no such page", "correct `page`; the first page is 0"),
        ErrorCode(
            "storage-denied",
            PERMANENT,
            "the storage refused access",
            "check the credentials and the rights on the object, then run with run.retry_failed=all",
        ),
        ErrorCode(
            "credentials-expired",
            TRANSIENT,
            "the storage says that the credentials have expired; the run stops early",
            "renew the credentials and run again; it goes on where it stopped",
        ),
        ErrorCode(
            "storage-transient",
            TRANSIENT,
            "the storage failed again and again",
            "run again; if it stays, look at the storage's health",
        ),
        ErrorCode(
            "worker-crash",
            TRANSIENT,
            "the process that worked on the item died each time, also with this item alone",
            "look at the image; give the workers more memory, or remove the row",
        ),
        ErrorCode(
            "time-limit",
            TRANSIENT,
            "the item took longer than `read.seconds`, `restore.seconds` or `write.seconds`, also alone",
            "raise the limit named in the message, or look at the image and the storage",
        ),
        ErrorCode(
            "out-of-memory",
            TRANSIENT,
            "the image did not fit into memory, even alone",
            "give the restore workers more memory",
        ),
        ErrorCode(
            "out-of-scratch",
            TRANSIENT,
            "a large image did not fit onto the worker's local disk",
            "set `restore.scratch` to a larger disk",
        ),
        ErrorCode(
            "bad-result",
            PERMANENT,
            "the network's result is not finite or far beyond black and white, even in fp32",
            "check kernel and sigma: a kernel with near-zero spectrum at sigma 0 is ill-posed",
        ),
        ErrorCode(
            "internal",
            TRANSIENT,
            "an error nobody foresaw; the message holds its type and place",
            "report it with the message; the next run tries again",
        ),
    )
}
