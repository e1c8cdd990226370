"""What every job shares: one table of exit codes, and errors shown as one line without traceback."""

import sys
from collections.abc import Callable

from pipeline.errors import CatalogError, ConfigError, LeaseHeld, NotFinished, UnfoldError, WeightsError

OK = 0
BUG = 1
BAD_INPUT = 2
TOO_MANY_FAILED = 3
NOT_FINISHED = 4
LEASE_HELD = 5

_CODES: tuple[tuple[type[UnfoldError], int], ...] = (
    (ConfigError, BAD_INPUT),
    (CatalogError, BAD_INPUT),
    (WeightsError, BAD_INPUT),
    (NotFinished, NOT_FINISHED),
    (LeaseHeld, LEASE_HELD),
    (UnfoldError, NOT_FINISHED),  # an ItemError outside any item: the storage of catalog or manifest
)


def run(program: Callable[[], int]) -> int:
    """`program()`'s exit code; errors raised on purpose become one line and their exit code.

    Anything else is a bug: it keeps its traceback, and Python exits with 1.
    """
    try:
        return program()
    except UnfoldError as error:
        print(f"error: {error}", file=sys.stderr)
        return next(code for kind, code in _CODES if isinstance(error, kind))
    except KeyboardInterrupt:
        print("stopped; what is done is recorded, run again to go on", file=sys.stderr)
        return NOT_FINISHED
