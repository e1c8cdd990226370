"""Configurations: every mistake names its key and the mend, and the shipped files say what the models say."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from pipeline.config.check import CheckConfig
from pipeline.config.explore import ExploreConfig
from pipeline.config.load import command_line, dump, load_config
from pipeline.config.nightly import NightlyConfig
from pipeline.config.report import ReportConfig
from pipeline.config.section import REQUIRED
from pipeline.config.train import TrainConfig
from pipeline.config.upscale import UpscaleConfig
from pipeline.errors import ConfigError

CONF = Path(__file__).resolve().parent.parent / "conf"
SHIPPED = [
    (UpscaleConfig, "upscale_archive"),
    (TrainConfig, "train_usrnet"),
    (ExploreConfig, "explore_settings"),
    (ReportConfig, "report"),
    (CheckConfig, "check_archive"),
    (NightlyConfig, "restore_nightly"),
]
NEEDED = ("catalog=in/catalog.csv", "output=out")


def load(*overrides: str, path: Path | None = None) -> UpscaleConfig:
    return load_config(UpscaleConfig, path, (*NEEDED, *overrides))


def written(folder: Path, text: str) -> Path:
    path = folder / "job.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def complaint(*overrides: str, path: Path | None = None) -> str:
    with pytest.raises(ConfigError) as error:
        load_config(UpscaleConfig, path, overrides)
    return str(error.value)


def leaves(settings: dict[str, object], above: str = "") -> Iterator[tuple[str, object]]:
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def defaults_of(model: type[BaseModel]) -> dict[str, object]:
    """Every key with its default; required ones say ???."""
    values: dict[str, object] = {}
    for name, field in model.model_fields.items():
        default: object = REQUIRED if field.is_required() else field.default
        if field.is_required() and isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            default = defaults_of(field.annotation)
        values[name] = dump(default) if isinstance(default, BaseModel) else default
    return dict(leaves(values))


@pytest.mark.parametrize(("model", "name"), SHIPPED)
def test_a_shipped_file_lists_exactly_the_models_keys_and_defaults(model: type[BaseModel], name: str) -> None:
    shipped = list(leaves(yaml.safe_load((CONF / f"{name}.yaml").read_text(encoding="utf-8"))))
    assert shipped == list(defaults_of(model).items()), "in the model's order"


@pytest.mark.parametrize(("model", "name"), SHIPPED)
def test_every_key_of_a_shipped_file_has_its_comment(model: type[BaseModel], name: str) -> None:
    lines = (CONF / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    bare = [line for line in lines if line.strip() and "#" not in line and not line.rstrip().endswith(":")]
    assert not bare


@pytest.mark.parametrize("model", [model for model, _ in SHIPPED])
def test_every_field_says_what_it_means(model: type[BaseModel]) -> None:
    def mute(section: type[BaseModel]) -> Iterator[str]:
        for name, field in section.model_fields.items():
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
                yield from mute(field.annotation)
            elif not field.description:
                yield name

    assert not list(mute(model))


def test_the_shipped_defaults_are_empty() -> None:
    settings = load_config(UpscaleConfig, CONF / "upscale_archive.yaml", NEEDED)
    assert (settings.defaults.kernel, settings.defaults.sigma, settings.defaults.scale) == (None, None, None)


def test_a_configuration_cannot_be_changed() -> None:
    settings = load()
    with pytest.raises(ValidationError):
        settings.read.cpus = 2.0


def test_the_last_override_wins_over_earlier_ones_and_over_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, "defaults: {scale: 2, sigma: 5}\nread: {cpus: 1}\n")
    settings = load("defaults.scale=3", "defaults.scale=4", path=path)
    assert (settings.defaults.scale, settings.defaults.sigma, settings.read.cpus) == (4, 5.0, 1.0)


@pytest.mark.parametrize("text", ["defaults.sigma=", "defaults.sigma=null", "defaults.sigma=~"])
def test_an_empty_override_means_none(text: str, tmp_path: Path) -> None:
    assert load(text, path=written(tmp_path, "defaults: {sigma: 5}")).defaults.sigma is None


def test_an_empty_section_has_its_defaults(tmp_path: Path) -> None:
    assert load(path=written(tmp_path, "defaults:\nread: {}\n")) == load()


def test_a_mapping_replaces_its_whole_section(tmp_path: Path) -> None:
    settings = load("restore={gpus: 1}", path=written(tmp_path, "restore: {threads: 3}"))
    assert (settings.restore.gpus, settings.restore.threads) == (1.0, None)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("encode.key={stem}_x{scale}", "{stem}_x{scale}"),
        ("encode.key='{dir}/{stem}'", "{dir}/{stem}"),
        ("defaults.kernel= gaussian( 1.60 ) ", "gaussian(1.6)"),
        ("defaults.kernel=gaussian(2.0, 0.8, 45)", "gaussian(2,0.8,45)"),
        ("defaults.kernel=k/psf.npz#name[3]", "k/psf.npz#name[3]"),
        ("catalog=2026-01-31", "2026-01-31"),
        ("catalog=[a].csv", "[a].csv"),
        ("output=12", "12"),
        ("output=s3://bucket:9000/a@2x", "s3://bucket:9000/a@2x"),
        ("run.max_failed_share=1e-3", 0.001),
        ("restore.unit_megapixels=8", 8.0),
        ("restore.gpus=0.25", 0.25),
        ("restore.gpus=2", 2.0),
        ("engine.precision=bf16", "bf16"),
        ("run.retry_failed=none", "none"),
    ],
)
def test_an_override_needs_no_quotes_that_yaml_would_ask_for(text: str, value: object) -> None:
    assert dict(leaves(dump(load(text))))[text.partition("=")[0]] == value


WRONG = [
    # override, words of the message
    ("sigma=3", ["sigma", "no such key", "given 3", "did you mean defaults.sigma?"]),
    ("restore.gpuss=1", ["restore.gpuss", "no such key", "did you mean restore.gpus?"]),
    ("restore.replicas.minimum=1", ["restore.replicas.minimum", "did you mean restore.replicas.min?"]),
    ("zzz=1", ["zzz", "no such key", "known here: catalog, catalog_root, output"]),
    ("1=1", ["'1=1'", "key.sub=value"]),
    ("encode.png_level=12", ["encode.png_level = 12", "less than or equal to 9", "default 1"]),
    ("encode.png_level=1.5", ["encode.png_level = 1.5", "integer", "default 1"]),
    ("encode.png_level=high", ["encode.png_level = 'high'", "integer"]),
    ("encode.format=gif", ["encode.format = 'gif'", "'png', 'tiff', 'jpeg', 'webp', 'avif' or 'same'", "default png"]),
    ("encode.format=", ["encode.format = None", "'avif' or 'same'"]),
    ("read.cpus=true", ["read.cpus = True", "number", "CPU share", "default 0.5"]),
    ("read.cpus='1'", ["read.cpus = '1'", "number"]),
    ("read.cpus=0", ["read.cpus = 0", "greater than 0"]),
    ("read=5", ["read = 5", "a section with the keys cpus, tasks"]),
    ("write.tasks=0", ["write.tasks = 0", "greater than or equal to 1", "default null"]),
    ("restore.gpus=1.5", ["restore.gpus = 1.5", "whole number"]),
    ("restore.replicas={min: 4, max: 2}", ["restore.replicas", "max >= min", "4", "2"]),
    ("defaults.scale=2.0", ["defaults.scale = 2.0", "integer", "1 deblurs"]),
    ("defaults.scale=20", ["defaults.scale = 20", "limits.scale = 16", "lower one"]),
    ("defaults.sigma=300", ["defaults.sigma = 300", "from 0 to 255, or auto", "grey levels"]),
    ("defaults.sigma=.nan", ["defaults.sigma = nan", "finite"]),
    ("defaults.phase=middle", ["defaults.phase = 'middle'", "'center' or 'corner'"]),
    ("defaults.kernel=gausian(2)", ["defaults.kernel = 'gausian(2)'", "gaussian(sd)", ".npz"]),
    ("defaults.kernel=gaussian(1, 2)", ["defaults.kernel", "2 numbers", "gaussian(sd, sd, angle)"]),
    ("defaults.kernel=gaussian(-1)", ["defaults.kernel", "lengths must lie"]),
    ("encode.key={name}", ["encode.key = '{name}'", "{stem}", "it has {name}"]),
    ("encode.key={dir}/{scale}", ["encode.key", "tell items apart", "{item_id}"]),
    ("encode.key=one.png", ["encode.key = 'one.png'", "tell items apart"]),
    ("encode.key={key", ["encode.key = '{key'", "expected '}'"]),
    ("encode.key={key!r}", ["encode.key", "not convert"]),
    ("encode.key={key:d}", ["encode.key = '{key:d}'", "template"]),
    ("encode.key=../{key}", ["encode.key = '../{key}'", "relative path"]),
    ("encode.key={key}/", ["encode.key = '{key}/'", "must end in a name"]),
    ("engine.precision=fp64", ["engine.precision = 'fp64'", "'bf16'"]),
    ("run.max_failed_share=1.5", ["run.max_failed_share = 1.5", "less than or equal to 1"]),
    ("run.progress_seconds=never", ["run.progress_seconds = 'never'", "number", "default 5.0"]),
    ("limits.bytes=2GB", ["limits.bytes = '2GB'", "integer", "bytes"]),
    ("catalog=", ["catalog is missing", "URI of the table of items", "catalog=..."]),
    ("output=???", ["output is missing", "URI prefix", "output=..."]),
    ("catalog.sub=1", ["'catalog.sub=1'", "catalog is given as 'in/catalog.csv'", "remove one"]),
    ("read.tasks={", ["command line: read.tasks", "no valid YAML", "quotes"]),
    ("a..b=2", ["'a..b=2'", "key.sub=value"]),
    ("noequals", ["'noequals'", "key.sub=value", "for instance"]),
]


@pytest.mark.parametrize(("override", "words"), WRONG, ids=[override for override, _ in WRONG])
def test_a_wrong_setting_names_its_key_what_was_given_and_the_mend(override: str, words: list[str]) -> None:
    text = complaint(*NEEDED, override)
    assert [word for word in words if word not in text] == [], text
    assert "\n" not in text


def test_all_mistakes_are_told_at_once_each_with_where_it_was_written(tmp_path: Path) -> None:
    path = written(tmp_path, "catalog: a.csv\nread: {cpu: 1}\nlimits: {scale: 0}\n")
    assert complaint("write.tasks=0", path=path).splitlines() == [
        f"{path}: output is missing (URI prefix for images/, manifest/ and run/); "
        "write it there, or output=... as an argument",
        f"{path}: read.cpu: there is no such key (given 1); did you mean read.cpus?",
        "command line: write.tasks = 0 must be greater than or equal to 1 "
        "(tasks at once, at most; null leaves it to the cluster's CPUs); "
        "correct it, or leave it out for the default null",
        f"{path}: limits.scale = 0 must be greater than or equal to 1 "
        "(largest super-resolution factor); correct it, or leave it out for the default 16",
    ]


BAD_FILES = [
    # content, words of the message
    (b"read: {cpus: 1}\nread: {cpus: 2}\n", ["line 2", "'read' is given twice", "remove one"]),
    (b"read:\n  cpus: 1\n  cpus: 1\n", ["line 3", "'cpus' is given twice"]),
    (b"catalog: [a\n", ["line 2", "no valid YAML"]),
    (b"catalog: a\n\toutput: b\n", ["line 2", "no valid YAML"]),
    (b"- catalog\n", ["`key: value`", "['catalog']"]),
    (b"just text\n", ["`key: value`", "'just text'"]),
    (b"catalog: a\n---\noutput: b\n", ["line 2", "no valid YAML"]),
    (b"catalog: !!python/object:os.system {}\n", ["line 1", "no valid YAML"]),
    (b"catalog: \xff\n", ["UTF-8"]),
    (b"catalog: 2026-01-31\n", ["catalog = datetime.date(2026, 1, 31)", "a valid string", "in quotes"]),
    (b"read: {1: 2}\n", ["read.1", "no such key"]),
    (b"limits: {scale: " + b"9" * 5000 + b"}\n", ["no valid YAML"]),
    (b"limits: {scale: 0x" + b"f" * 5000 + b"}\n", ["limits.scale"]),
    (b"a: &a [*a]\n", ["a: there is no such key"]),
    (b"[" * 3000, ["no valid YAML"]),
]


@pytest.mark.parametrize(("content", "words"), BAD_FILES, ids=[repr(case[0][:40]) for case in BAD_FILES])
def test_a_bad_file_names_itself_and_the_place(tmp_path: Path, content: bytes, words: list[str]) -> None:
    (tmp_path / "job.yaml").write_bytes(content)
    text = complaint(path=tmp_path / "job.yaml")
    assert [word for word in [str(tmp_path / "job.yaml"), *words] if word not in text] == [], text


def test_a_missing_file_names_those_that_are_there(tmp_path: Path) -> None:
    there = written(tmp_path, "")
    text = complaint(path=tmp_path / "jobb.yaml")
    assert str(tmp_path / "jobb.yaml") in text
    assert f"there are {there}" in text


SECRET_URIS = [
    "s3://AKID:hunter2@bucket/a.csv",
    "s3://AKID:hun/ter2@bucket/a.csv",
    "redis://:hunter2@host/a.csv",
    "https://host/a.csv?X-Amz-Signature=hunter2&X-Amz-Date=1",
    "https://host/a.csv?a=b&x-amz-security-token=hunter2",
    "https://account.blob.core.windows.net/c/a.csv?sv=1&sig=hunter2",
]


@pytest.mark.parametrize("key", ["catalog", "catalog_root", "output", "model.weights", "defaults.kernel", "cattalog"])
@pytest.mark.parametrize("uri", SECRET_URIS)
def test_a_credential_is_refused_without_being_repeated(tmp_path: Path, key: str, uri: str) -> None:
    text = complaint(*NEEDED, f"{key}={uri}")
    assert key in text
    assert "credential" in text
    assert "ter2" not in text
    for line in (f"{key}: {uri}: [", f"{uri}", f"{key}: {uri}\n{key}: {uri}"):  # broken in other ways as well
        text = complaint(line)
        assert "ter2" not in text
        assert "ter2" not in complaint(path=written(tmp_path, line)), line


@pytest.mark.parametrize("uri", ["s3://b/a:b@2x.csv", "s3://h:9000/a@2x", "https://h/a?size=3", "a@b:c"])
def test_a_uri_without_credential_is_accepted(uri: str) -> None:
    assert load(f"output={uri}").output == uri


@given(st.text(max_size=60))
def test_whatever_is_typed_is_accepted_or_a_config_error(text: str) -> None:
    for override in (text, f"catalog={text}", f"encode.key={text}", f"restore.gpus={text}", f"limits={text}"):
        with suppress(ConfigError):
            load(override)


def test_dump_gives_back_the_same_configuration() -> None:
    settings = load("defaults.scale=2", "encode.key={stem}", "restore.replicas.max=3")
    assert UpscaleConfig.model_validate(dump(settings)) == settings


def test_the_config_file_lies_beside_the_jobs_and_is_named_like_the_job(tmp_path: Path) -> None:
    line = command_line(["a=1", "--config", "x.yaml", "b.c=2"], tmp_path / "jobs" / "some_job.py")
    assert line == (Path("x.yaml"), ("a=1", "b.c=2"), frozenset())
    assert command_line([], tmp_path / "jobs" / "some_job.py").config == tmp_path / "conf" / "some_job.yaml"


@pytest.mark.parametrize("argv", [["--conf", "x.yaml"], ["--config"], ["--plam"], ["--key=s3://a:hunter2@b"]])
def test_a_wrong_argument_is_explained(argv: list[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"command line: .*--config CONFIG.*key\.sub=value") as error:
        command_line(argv, tmp_path / "jobs" / "some_job.py")
    assert "hunter2" not in str(error.value)


def test_help_shows_what_the_job_is_about(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="0"):
        command_line(["--help"], tmp_path / "jobs" / "some_job.py", "Restores 100% of it.")
    assert "Restores 100% of it." in capsys.readouterr().out


def test_verbs_are_flags_that_only_their_job_knows(tmp_path: Path) -> None:
    line = command_line(["--plan", "a=1"], tmp_path / "jobs" / "some_job.py", verbs={"plan": "say it", "json": "so"})
    assert line.verbs == {"plan"}
    with pytest.raises(ConfigError, match="--plan"):
        command_line(["--plan"], tmp_path / "jobs" / "some_job.py")
