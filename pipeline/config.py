"""The settings of each job: one strict, frozen configuration, from YAML and `key.sub=value` overrides.

    jobs/upscale_archive.py   UpscaleConfig   conf/upscale_archive.yaml
    jobs/train_usrnet.py      TrainConfig     conf/train_usrnet.yaml
    jobs/train_usrnet.py      TrainConfig     conf/train_usrnet.yaml

The text below each field is its meaning and unit; error messages repeat it. Whatever is wrong
becomes one `ConfigError` that names, for each mistake, where it was written, the full key, what was
given, what is allowed and the mend. Knows no job, no Ray, and no storage beyond the local YAML file.
"""

import argparse
import difflib
import re
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, NoReturn, Self, TypeVar, get_args

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from pipeline.credentials import MEND as CREDENTIAL_MEND
from pipeline.credentials import holds_secret, shown
from pipeline.errors import ConfigError, ItemError
from pipeline.keys import checked_template
from pipeline.resolve import checked_kernel

T = TypeVar("T", bound=BaseModel)
KeyPath = tuple[str, ...]


def _without_secret(uri: str) -> str:
    if holds_secret(uri):
        raise ValueError(f"must not hold a credential; {CREDENTIAL_MEND}")
    return uri


def _kernel_spec(spec: str) -> str:
    try:
        return checked_kernel(spec)
    except ItemError as error:
        raise ValueError(f"must be a kernel specification; {error}") from None


def _whole_above_one(gpus: float) -> float:
    if gpus > 1 and gpus != int(gpus):
        raise ValueError("must be a share from 0 to 1 or a whole number: a replica cannot use 1.5 GPUs")
    return gpus


Text = Annotated[str, Field(min_length=1)]
Uri = Annotated[Text, AfterValidator(_without_secret)]
Kernel = Annotated[Uri, AfterValidator(_kernel_spec)]
Template = Annotated[Text, AfterValidator(checked_template)]
Gpus = Annotated[float, Field(ge=0), AfterValidator(_whole_above_one)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1, le=2**53)]


REQUIRED = "???"  # in a YAML file: a person must replace it


class Section(BaseModel):
    """A group of keys: unknown keys are errors, an int may stand for a float, nothing else converts."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    @model_validator(mode="before")
    @classmethod
    def _as_written(cls, given: object) -> object:
        """`defaults:` with nothing below it is an empty section; a key that says ??? is still missing."""
        if not isinstance(given, dict):
            return {} if given is None else given
        return {key: value for key, value in given.items() if value != REQUIRED}


class DefaultsSection(Section):
    """For items whose catalog row does not say; empty, so that nothing is assumed in silence."""

    kernel: Kernel | None = None
    """kernel specification (lengths in HR pixels), or URI of a kernel file"""
    sigma: Annotated[float, Field(ge=0, le=255)] | None = None
    """noise standard deviation in grey levels of 0-255"""
    scale: Count | None = None
    """super-resolution factor; 1 deblurs"""
    phase: Literal["center", "corner"] = "center"
    """where an LR pixel sits in its block of scale x scale HR pixels: real cameras center"""


class ModelSection(Section):
    """The network."""

    weights: Uri | None = None
    """URI of a USRNet checkpoint (.pth, .safetensors); null takes the packaged weights"""


class EngineSection(Section):
    """How an image is restored."""

    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """number format of the prior's convolutions; auto takes bf16 where the hardware has it"""
    boundary: Literal["smooth", "circular"] = "smooth"
    """smooth extends images to periodic ones; circular is for synthetic, periodic inputs"""


class ReadSection(Section):
    """Tasks that fetch and decode."""

    cpus: Positive = 0.5
    """CPU share of one task"""
    tasks: Count | None = None
    """tasks at once, at most; null leaves it to the cluster's CPUs"""


class ReplicasSection(Section):
    """How many networks work side by side."""

    min: Count = 1
    """replicas to start with"""
    max: Count | None = None
    """replicas at most; null takes as many as the cluster has room for"""

    @model_validator(mode="after")
    def _min_up_to_max(self) -> Self:
        if self.max is not None and self.max < self.min:
            raise ValueError(f"must have max >= min, or max: null; min is {self.min}, max is {self.max}")
        return self


class RestoreSection(Section):
    """The actors that hold the network."""

    gpus: Gpus | None = None
    """GPUs of one replica, may be a fraction; null takes 1 where the cluster has GPUs, else 0"""
    threads: Count | None = None
    """CPU threads of a replica without GPU; null shares the CPUs among the replicas"""
    replicas: ReplicasSection = ReplicasSection()
    unit_megapixels: Positive = 4.0
    """HR megapixels of one work unit"""
    unit_items: Count = 64
    """items of one work unit, at most"""


class WriteSection(Section):
    """Tasks that encode and store."""

    cpus: Positive = 0.5
    """CPU share of one task"""
    tasks: Count | None = None
    """tasks at once, at most; null leaves it to the cluster's CPUs"""


class EncodeSection(Section):
    """The files that are written."""

    format: Literal["png", "tiff"] = "png"
    """format of the results"""
    png_level: Annotated[int, Field(ge=0, le=9)] = 1
    """PNG compression level, 0 (none) to 9 (smallest, slowest)"""
    tiff_compression: Literal["deflate", "lzw", "none"] = "deflate"
    """lossless compression of TIFF files"""
    key: Template | None = None
    """template of output keys: {key} {stem} {dir} {item_id} {scale} {page}; null mirrors the input"""


class LimitsSection(Section):
    """What is refused as over-limit."""

    scale: Count = 16
    """largest super-resolution factor"""
    kernel: Count = 512
    """largest side of a kernel, HR pixels"""
    lr_pixels: Count = 2**28
    """largest LR image, pixels"""
    bytes: Count = 2**31
    """largest encoded input, bytes"""


class RunSection(Section):
    """The run as a whole."""

    retry_failed: Literal["none", "transient", "all"] = "transient"
    """which of the items that failed in earlier runs are tried again"""
    max_failed_share: Share = 0.0
    """failed share of this run's items (0 to 1) up to which the job still exits with 0"""
    progress_seconds: Positive = 5.0
    """seconds between progress lines where there is no terminal"""


class UpscaleConfig(Section):
    """Settings of jobs/upscale_archive.py."""

    catalog: Uri
    """URI of the table of items: .parquet, .csv or .jsonl, one file or a folder of them"""
    catalog_root: Uri | None = None
    """URI that relative URIs in the catalog are below; null takes the catalog's folder"""
    output: Uri
    """URI prefix for images/, manifest/ and run/"""
    defaults: DefaultsSection = DefaultsSection()
    model: ModelSection = ModelSection()
    engine: EngineSection = EngineSection()
    read: ReadSection = ReadSection()
    restore: RestoreSection = RestoreSection()
    write: WriteSection = WriteSection()
    encode: EncodeSection = EncodeSection()
    limits: LimitsSection = LimitsSection()
    run: RunSection = RunSection()

    @model_validator(mode="after")
    def _default_scale_within_limits(self) -> Self:
        if self.defaults.scale is not None and self.defaults.scale > self.limits.scale:
            raise ValueError(
                f"defaults.scale = {self.defaults.scale} must not exceed limits.scale = {self.limits.scale}; "
                "lower one or raise the other"
            )
        return self


class RecipeSection(Section):
    """What is learned, and how fast."""

    steps: Count = 4500
    """parameter updates; the learning rate falls along a cosine up to the last"""
    batch: Count = 8
    """crops of one step"""
    patch: Annotated[int, Field(ge=12, multiple_of=12)] = 96
    """HR pixels of a crop's side, a multiple of 12"""
    learning_rate: Positive = 5e-4
    """at its highest, after the warm-up"""
    warmup: Annotated[int, Field(ge=0)] = 100
    """steps of linear warm-up"""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.998
    """share of the moving average of the weights that a step keeps, 0 to below 1"""
    clip: Positive = 1.0
    """largest norm of the gradient"""
    precision: Literal["fp32", "bf16"] = "fp32"
    """number format of the prior's convolutions"""
    seed: Annotated[int, Field(ge=0)] = 0
    """of everything random"""


class TrainConfig(Section):
    """Settings of jobs/train_usrnet.py."""

    photographs: Uri
    """URI of a folder of clean HR photographs, searched recursively"""
    output: Text
    """local folder for the training's state and the weights"""
    weights: Text | None = None
    """checkpoint file to start from; null starts the tiny network from scratch"""
    validation: Annotated[int, Field(ge=0)] = 12
    """photographs held out"""
    every: Count = 100
    """steps between two progress lines, validations and checkpoints"""
    threads: Count | None = None
    """CPU threads; null leaves it to torch"""
    recipe: RecipeSection = RecipeSection()


class CommandLine(NamedTuple):
    """What a person typed: the YAML file, and `key.sub=value` texts."""

    config: Path
    overrides: tuple[str, ...]


def command_line(argv: Sequence[str], job_file: str | Path, about: str | None = None) -> CommandLine:
    """`[--config conf/NAME.yaml] [key.sub=value ...]`, in any order.

    argv: without the program's name. job_file: `__file__` of the job; `--config` defaults to
    conf/<job>.yaml beside its folder. about: what `--help` shows before it exits. Raises
    `ConfigError` for anything else.
    """
    job = Path(job_file).resolve()
    default = job.parent.parent / "conf" / f"{job.stem}.yaml"
    parser = _Parser(job.name, description=about, formatter_class=argparse.RawTextHelpFormatter, allow_abbrev=False)
    parser.add_argument("overrides", nargs="*", metavar="key.sub=value", help="settings before the file's")
    parser.add_argument("--config", type=Path, default=default, help=f"YAML file (default: {default})")
    given = parser.parse_intermixed_args(list(argv))
    return CommandLine(given.config, tuple(given.overrides))


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
        lines = [_explain(model, mistake, file, overridden) for mistake in error.errors(include_url=False)]
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
    section[path[-1]] = _override_value(_field(model, path), value, ".".join(path))
    return path


def _override_value(field: FieldInfo | None, text: str, key: str) -> Any:
    """Parsed as YAML; but where text is wanted, `{stem}_x2` and `2024-01-01` need no quotes."""
    if not _takes_text(field):
        return _parse_yaml(text, f"command line: {key}")
    try:
        value = _parse_yaml(text, key)
    except ConfigError:
        return text
    return value if isinstance(value, (str, type(None))) else text


def _takes_text(field: FieldInfo | None) -> bool:
    def has_text(hint: Any) -> bool:
        return hint is str or any(has_text(part) for part in get_args(hint))

    return field is not None and has_text(field.annotation)


def _explain(model: type[BaseModel], mistake: ErrorDetails, file: str, overridden: Sequence[KeyPath]) -> str:
    """One line: where it was written, which key, what was given, what is allowed, the mend."""
    path = tuple(str(part) for part in mistake["loc"] if part != "[key]")
    if not path:
        return f"configuration: {mistake['msg'].removeprefix('Value error, ')}"
    start = f"{_source(path, file, overridden)}: {'.'.join(path)}"
    field, given = _field(model, path), mistake["input"]
    if field is None:
        return f"{start}: there is no such key (given {shown(given)}); {_known(model, path)}"
    meaning = f" ({field.description})" if field.description else ""
    if mistake["type"] == "missing" or (given is None and field.is_required()):
        return f"{start} is missing{meaning}; write it there, or {'.'.join(path)}=... as an argument"
    value = "" if isinstance(given, dict) else f" = {shown(given)}"
    return f"{start}{value} {_allowed(field, mistake)}{meaning}; {_mend(field, mistake)}"


def _source(path: KeyPath, file: str, overridden: Sequence[KeyPath]) -> str:
    """Where the value at `path` was written."""
    by_argument = any(path[: len(key)] == key or key[: len(path)] == path for key in overridden)
    return "command line" if by_argument else file


def _allowed(field: FieldInfo, mistake: ErrorDetails) -> str:
    if mistake["type"] == "model_type" and (section := _section(field)):
        return f"must be a section with the keys {', '.join(section.model_fields)}"
    text = mistake["msg"].removeprefix("Value error, ")
    return text.replace("Input should be", "must be").replace("String should have", "must have")


def _mend(field: FieldInfo, mistake: ErrorDetails) -> str:
    if mistake["type"] == "string_type":
        return "write it as text, in quotes"
    if field.is_required() or _section(field):
        return "correct it"
    default = "null" if field.default is None else field.default
    return f"correct it, or leave it out for the default {default}"


def _field(model: type[BaseModel], path: KeyPath) -> FieldInfo | None:
    """The field a full key names, or None where there is none."""
    field: FieldInfo | None = None
    section: type[BaseModel] | None = model
    for name in path:
        field = section.model_fields.get(name) if section else None
        section = _section(field) if field else None
    return field


def _section(field: FieldInfo) -> type[BaseModel] | None:
    hint = field.annotation
    return hint if isinstance(hint, type) and issubclass(hint, BaseModel) else None


def _keys(model: type[BaseModel], above: KeyPath = ()) -> Iterator[KeyPath]:
    """Every key of a configuration, sections before their keys."""
    for name, field in model.model_fields.items():
        yield (*above, name)
        if section := _section(field):
            yield from _keys(section, (*above, name))


def _known(model: type[BaseModel], path: KeyPath) -> str:
    """The nearest known key and the keys that stand beside it: `sigma` is near `defaults.sigma`."""

    def likeness(key: KeyPath) -> tuple[float, float]:
        whole, last = (
            difflib.SequenceMatcher(None, a.lower(), b.lower()).ratio()
            for a, b in ((".".join(key), ".".join(path)), (key[-1], path[-1]))
        )
        return max(whole, last), whole

    nearest = max(_keys(model), key=likeness)
    if likeness(nearest)[0] >= 0.6:
        return f"did you mean {'.'.join(nearest)}?"
    beside = ", ".join(".".join(key) for key in _keys(model) if key[:-1] == path[:-1])
    return f"known here: {beside or ', '.join(model.model_fields)}"
