"""A refused setting in one line: where it was written, its key, what was given, what is allowed, the mend."""

import difflib
from collections.abc import Sequence
from typing import get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from pipeline.config.fields import KeyPath, field_of, keys_of, section_of
from pipeline.credentials import shown


def explain(model: type[BaseModel], mistake: ErrorDetails, file: str, overridden: Sequence[KeyPath]) -> str:
    """One line: where it was written, which key, what was given, what is allowed, the mend."""
    path = tuple(str(part) for part in mistake["loc"] if part != "[key]")
    if not path:
        return f"configuration: {mistake['msg'].removeprefix('Value error, ')}"
    start = f"{_source(path, file, overridden)}: {'.'.join(path)}"
    field, given = _field_at(model, path), mistake["input"]
    if field is None:
        return f"{start}: there is no such key (given {shown(given)}); {_known(model, path)}"
    meaning = f" ({field.description})" if field.description else ""
    if mistake["type"] == "missing" or (given is None and field.is_required()):
        return f"{start} is missing{meaning}; write it there, or {'.'.join(path)}=... as an argument"
    value = "" if isinstance(given, dict) else f" = {shown(given)}"
    return f"{start}{value} {_allowed(field, mistake)}{meaning}; {_mend(field, mistake)}"


def _field_at(model: type[BaseModel], path: KeyPath) -> FieldInfo | None:
    """The field that `path` names, or whose list it names an entry of."""
    field = field_of(model, path)
    if field is None and path[-1].isdigit():
        above = field_of(model, path[:-1])
        return above if above and get_origin(above.annotation) is list else None
    return field


def _source(path: KeyPath, file: str, overridden: Sequence[KeyPath]) -> str:
    """Where the value at `path` was written."""
    by_argument = any(path[: len(key)] == key or key[: len(path)] == path for key in overridden)
    return "command line" if by_argument else file


def _allowed(field: FieldInfo, mistake: ErrorDetails) -> str:
    if mistake["type"] == "model_type" and (section := section_of(field)):
        return f"must be a section with the keys {', '.join(section.model_fields)}"
    text = mistake["msg"].removeprefix("Value error, ")
    return text.replace("Input should be", "must be").replace("String should have", "must have")


def _mend(field: FieldInfo, mistake: ErrorDetails) -> str:
    if mistake["type"] == "string_type":
        return "write it as text, in quotes"
    if field.is_required() or section_of(field):
        return "correct it"
    default = "null" if field.default is None else field.default
    return f"correct it, or leave it out for the default {default}"


def _known(model: type[BaseModel], path: KeyPath) -> str:
    """The nearest known key and the keys that stand beside it: `sigma` is near `defaults.sigma`."""

    def likeness(key: KeyPath) -> tuple[float, float]:
        whole, last = (
            difflib.SequenceMatcher(None, a.lower(), b.lower()).ratio()
            for a, b in ((".".join(key), ".".join(path)), (key[-1], path[-1]))
        )
        return max(whole, last), whole

    nearest = max(keys_of(model), key=likeness)
    if likeness(nearest)[0] >= 0.6:
        return f"did you mean {'.'.join(nearest)}?"
    beside = ", ".join(".".join(key) for key in keys_of(model) if key[:-1] == path[:-1])
    return f"known here: {beside or ', '.join(model.model_fields)}"
