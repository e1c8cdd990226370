"""The keys of a configuration by their full names: `restore.replicas.max`."""

from collections.abc import Iterator
from typing import TypeAlias

from pydantic import BaseModel
from pydantic.fields import FieldInfo

KeyPath: TypeAlias = tuple[str, ...]


def field_of(model: type[BaseModel], path: KeyPath) -> FieldInfo | None:
    """The field a full key names, or None where there is none."""
    field: FieldInfo | None = None
    section: type[BaseModel] | None = model
    for name in path:
        field = section.model_fields.get(name) if section else None
        section = section_of(field) if field else None
    return field


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    hint = field.annotation
    return hint if isinstance(hint, type) and issubclass(hint, BaseModel) else None


def keys_of(model: type[BaseModel], above: KeyPath = ()) -> Iterator[KeyPath]:
    """Every key of a configuration, sections before their keys."""
    for name, field in model.model_fields.items():
        yield (*above, name)
        if section := section_of(field):
            yield from keys_of(section, (*above, name))
