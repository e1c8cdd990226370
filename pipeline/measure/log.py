"""What a job says, as text for people or as one JSON object a line for collectors of logs.

Every line of the latter has `time` (UTC, ISO 8601), `event` and, by event, further fields.
"""

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TextIO

Say = Callable[[str], None]


def sayer(kind: str, stream: TextIO | None = None) -> Say:
    """How to tell a person something: `text` prints it, `json` makes it the text of a line.

    stream: standard output where not given.
    """
    if kind == "json":
        return lambda text: print(json_line("message", text=text.strip()), file=stream or sys.stdout, flush=True)
    return lambda text: print(text, file=stream or sys.stdout, flush=True)


def json_line(event: str, now: Callable[[], datetime] = lambda: datetime.now(UTC), **facts: Any) -> str:
    """One line, without line breaks in it whatever the facts hold."""
    return json.dumps({"time": now().isoformat(timespec="milliseconds"), "event": event, **facts}, ensure_ascii=False)
