"""A job's configuration from its YAML file and the `key.sub=value` arguments of its command line.

Whatever is wrong becomes one `ConfigError` that names, for each mistake, where it was written, the
full key, what was given, what is allowed and the mend. Knows no job, no Ray, and no storage beyond
the local YAML file.
"""

import argparse
import re
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, NoReturn, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from pipeline.config.explain import explain
from pipeline.config.fields import KeyPath, field_of
from pipeline.credentials import holds_secret, shown
from pipeline.errors import ConfigError

T = TypeVar("T", bound=BaseModel)


class CommandLine(NamedTuple):
    """What a person typed: the YAML file, `key.sub=value` texts, and the verbs given as flags."""

    config: Path
    overrides: tuple[str, ...]
    verbs: frozenset[str] = frozenset()


def command_line(
    argv: Sequence[str],
    job_file: str | Path,
    about: str | None = None,
    verbs: Mapping[str, str] = MappingProxyType({}),
) -> CommandLine:
    """`[--config conf/NAME.yaml] [--verb ...] [key.sub=value ...]`, in any order.

    argv: without the program's name. job_file: `__file__` of the job; `--config` defaults to
    conf/<job>.yaml beside its folder. about: what `--help` shows before it exits. verbs: flags by
    name, with their help. Raises `ConfigError` for anything else.
    """
    job = Path(job_file).resolve()
    default = job.parent.parent / "conf" / f"{job.stem}.yaml"
    parser = _Parser(job.name, description=about, formatter_class=argparse.RawTextHelpFormatter, allow_abbrev=False)
    parser.add_argument("overrides", nargs="*", metavar="key.sub=value", help="settings before the file's")
    parser.add_argument("--config", type=Path, default=default, help=f"YAML file (default: {default})")
    for verb, meaning in verbs.items():
        parser.add_argument(f"--{verb}", action="store_true", help=meaning)
    given = parser.parse_intermixed_args(list(argv))
    return CommandLine(given.config, tuple(given.overrides), frozenset(v for v in verbs if getattr(given, v)))


def load_config(model: type[T], path: str | Path | None, overrides: Sequence[str] = ()) -> T:
    """The configuration of a job: the YAML file's keys, replaced by `key.sub=value` overrides.

    An override's value is YAML; `key.sub=` and `key.sub=null` mean None. A mapping replaces its
    whole section. Raises `ConfigError`, one line a mistake.
    """
    settings = {} if path is None else _read_yaml(Path(path))
    overridden = [_override(model, settings, text) for text in overrides]
    try:
        return model.model_validate(settings)
    except ValidationError as error:
        file = "configuration" if path is None else str(path)
        lines = [explain(model, mistake, file, overridden) for mistake in error.errors(include_url=False)]
        raise ConfigError("\n".join(lines)) from None


def dump(config: BaseModel) -> dict[str, object]:
    """All settings as plain values, for the run record. Holds no credentials: none are accepted."""
    return config.model_dump(mode="json")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        text = "an argument holds a credential" if holds_secret(message) else message
        raise ConfigError(f"command line: {text}; allowed is: {' '.join(self.format_usage().split())}")


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice and reads 1e-3 as a number (as YAML 1.2 does)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if key.value in seen and isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {shown(key.value)} is given twice; remove one", key.start_mark
                )
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
        return super().construct_mapping(node, deep)


_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+[eE][-+]?\d+$"), list("-+0123456789")
)


def _read_yaml(path: Path) -> dict[Any, Any]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such configuration file{_neighbours(path)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as UTF-8 text: {error}; give a YAML file") from None
    settings = _parse_yaml(text, str(path))
    if not isinstance(settings, (dict, type(None))):
        raise ConfigError(f"{path}: must hold lines of `key: value`, not {shown(settings)}")
    return settings or {}


def _neighbours(path: Path) -> str:
    names = sorted(str(file) for file in path.parent.glob("*.yaml"))
    return f"; there are {', '.join(names)}" if names else "; give one with --config"


def _parse_yaml(text: str, source: str) -> Any:
    """A YAML value. Messages leave the offending line itself out: it may hold a secret."""
    try:
        return yaml.load(text, Loader=_StrictLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        reason = error.problem or error.context
        raise ConfigError(f"{source}{where}: is no valid YAML: {reason}; {_QUOTE}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f"{source}: is no valid YAML: {reason}; {_QUOTE}") from None


_QUOTE = "correct it; text with special signs goes into quotes"


def _override(model: type[BaseModel], settings: dict[Any, Any], text: str) -> KeyPath:
    """Set one `key.sub=value` in the nested settings; returns the key's path."""
    key, equals, value = text.partition("=")
    path = tuple(key.strip().split("."))
    if not equals or not all(part.replace("-", "_").isidentifier() for part in path):
        raise ConfigError(f"command line: {shown(text)} must be key.sub=value, for instance defaults.scale=2")
    section = settings
    for depth, name in enumerate(path[:-1], start=1):
        if section.get(name) is None:
            section[name] = {}
        section = section[name]
        if not isinstance(section, dict):
            raise ConfigError(
                f"command line: {shown(text)}: {'.'.join(path[:depth])} is given as {shown(section)}, "
                "not as a section; remove one of the two"
            )
    section[path[-1]] = _override_value(field_of(model, path), value, ".".join(path))
    return path


def _override_value(field: FieldInfo | None, text: str, key: str) -> Any:
    """Parsed as YAML; but where text is wanted, `{stem}_x2` and `2024-01-01` need no quotes."""
    if not _takes(field, str):
        return _parse_yaml(text, f"command line: {key}")
    try:
        value = _parse_yaml(text, key)
    except ConfigError:
        return text
    kept = (str, list, type(None)) if _takes(field, list) else (str, type(None))
    return value if isinstance(value, kept) else text


def _takes(field: FieldInfo | None, kind: type) -> bool:
    def has(hint: Any) -> bool:
        return kind in (hint, get_origin(hint)) or any(has(part) for part in get_args(hint))

    return field is not None and has(field.annotation)
