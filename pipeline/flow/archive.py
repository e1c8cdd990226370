"""One run over one archive, from catalog to run record. What `jobs/upscale_archive.py` calls.

weights   loaded once here, so that bad ones stop the run before anything starts
lease     no other run works on this output meanwhile
plan      catalog minus what the manifest says is done, in waves where it is large (pipeline.waves)
flow      work units through read, restore, write (pipeline.flow.graph), a wave after the other
settle    a plain read of the manifest shows one row per item, after each wave
check     items in = done + failed, or the run says what is missing
"""

import io
import json
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import ray.exceptions

from pipeline import uris
from pipeline.config.load import dump
from pipeline.config.upscale import UpscaleConfig
from pipeline.data import images, manifest, storage, upkeep, uploads
from pipeline.data.lease import Lease, acquire
from pipeline.errors import (
    ERROR_CODES,
    TRANSIENT,
    ConfigError,
    ItemError,
    NotFinished,
    StorageError,
    UnfoldError,
    WeightsError,
)
from pipeline.flow import cluster, graph
from pipeline.flow.cluster import Placement
from pipeline.flow.ledger import open_ledger
from pipeline.flow.metrics import Metrics
from pipeline.flow.oversee import OF_THE_STORE, Breaker, Overseer, Stop, listening
from pipeline.flow.verify import forget_altered
from pipeline.measure.progress import Progress
from pipeline.measure.stages import Stages
from pipeline.measure.summary import Summary
from pipeline.plan import SAME, Plan, cut_units, split_by_size
from pipeline.records import DEFERRED, Item, Outcome
from pipeline.resolve import Defaults, Limits
from pipeline.stages.read import ReadLimits
from pipeline.stages.write import Encoding
from pipeline.survey import survey
from pipeline.waves import Waves


def _version(package: str) -> str:
    """A checkout that is not installed, as `ray job submit --working-dir .` uploads it, has no version."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "(not installed)"


SOFTWARE = f"unfold {_version('unfold')}"
_HANGS = 3  # time limits: a unit's, then its item's alone, and the worker's start between them
_ROWS_PER_PART = 10_000  # of invalid items: no images in these rows, so a part may hold many


def new_run_id(now: datetime) -> str:
    """Sorts by time: 20260131T220000-123456."""
    return now.strftime("%Y%m%dT%H%M%S-%f")


def restore_archive(
    config: UpscaleConfig,
    say: Callable[[str], None] = print,
    *,
    verify: bool = False,
    prepare: Callable[[], None] = lambda: None,
) -> Summary:
    """Restore what the catalog asks for and the manifest does not have yet.

    verify: first read all done outputs, and restore again what is missing or altered. prepare: what
    only the holder of the output's lease may do before the catalog is read, such as making it.

    Needs no running Ray; joins the cluster at RAY_ADDRESS or starts one. Raises ConfigError,
    CatalogError or WeightsError before any work, LeaseHeld when another run works on the output,
    NotFinished when it had to stop early.
    """
    config = config.model_copy(update={"output": uris.absolute(config.output)})
    started = datetime.now(UTC)
    summary = Summary(new_run_id(started), config.output)
    weights, summary.model_id = load_weights(config.model.weights)
    with (
        ExitStack() as cluster_ends,  # the cluster ends last: a drained run has seconds
        listening() as stop,
        _leased(config, summary.run_id, say) as lease,
    ):
        prepare()
        if verify:
            cluster_ends.enter_context(cluster.joined(say, config.run.metrics_port))
            stop.listen(draining=False)
            _verify(config, say)
        _run(config, summary, weights, started, _overseer(config, stop, lease), cluster_ends, say)
    if summary.missing:
        raise NotFinished(f"{summary.missing} items came out of the flow without an outcome; run again")
    return summary


def _verify(config: UpscaleConfig, say: Callable[[str], None]) -> None:
    where = cluster.task_resources(config.run.task_resource)
    try:
        forget_altered(config.output, cpus=config.read.cpus, resources=where, say=say)
    except (ray.exceptions.RayError, StorageError) as error:
        if _is_a_bug(error):
            raise
        raise NotFinished(f"the outputs could not all be verified; run again: {error}") from error


@contextmanager
def _leased(config: UpscaleConfig, run_id: str, say: Callable[[str], None]) -> Iterator[Lease]:
    """The lease of the output, and the output without what earlier runs left behind half-way."""
    try:
        lease = acquire(config.output, run_id, seconds=config.run.lease_seconds, say=say)
    except StorageError as error:
        raise _unwritable(config.output, error) from None
    try:
        with suppress(StorageError):  # some may write here and not list uploads
            uploads.abort(uris.join(config.output, "images"))
        yield lease
    finally:
        lease.release()


def _run(
    config: UpscaleConfig,
    summary: Summary,
    weights: bytes,
    started: datetime,
    overseer: Overseer,
    cluster_ends: ExitStack,
    say: Callable[[str], None],
) -> None:
    """What only one run at a time may do: from the manifest that was to the one that is."""
    waves = plan_waves(config, summary.model_id, say)
    counts = waves.counts
    summary.catalog_items, summary.already_done, summary.waiting = counts.items, counts.done, counts.waiting
    say(_announcement(waves))
    progress = Progress(counts.to_account, every=config.run.progress_seconds, log=config.run.log)
    _prove_writable(summary, config, started)
    try:
        with progress:
            for unit in _outcomes(config, waves, weights, summary.run_id, overseer, cluster_ends, say, progress.stages):
                progress.add(unit)
        summary.finished = True
    finally:
        _account(summary, progress, counts.to_account, started)
        _write_last_record(summary, config, started, say)


def _overseer(config: UpscaleConfig, stop: Stop, lease: Lease) -> Overseer:
    return Overseer(
        stop=stop,
        lease=lease,
        breaker=Breaker(config.run.breaker_share, config.run.breaker_items),
        drain_seconds=config.run.drain_seconds,
        stall_seconds=_stall_seconds(config),
    )


def _stall_seconds(config: UpscaleConfig) -> float:
    """Long enough for a hanging item to be found, tried alone and failed."""
    longest = max(config.read.seconds, config.restore.seconds, config.write.seconds)
    return config.run.stall_seconds or _HANGS * longest


def load_weights(uri: str | None, key: str = "model.weights") -> tuple[bytes, str]:
    """The checkpoint's bytes, proved to be a USRNet, and its model id. key: the setting that names it."""
    from pipeline.model.checkpoint import load_usrnet, model_id, packaged_weights

    try:
        data = packaged_weights() if uri is None else storage.read_bytes(uris.absolute(uri))
    except ItemError as error:
        raise WeightsError(f"{key}: {error}") from None
    return data, model_id(load_usrnet(io.BytesIO(data), name=f"{key} {uri or '(packaged)'}"))


def plan_waves(config: UpscaleConfig, model_id: str, say: Callable[[str], None]) -> Waves:
    """What the run has to do; kernel files that look wrong are told to `say`."""
    return survey(
        config.catalog,
        config.output,
        root=config.catalog_root,
        defaults=Defaults(**config.defaults.model_dump()),
        limits=Limits(**config.limits.model_dump()),
        key_template=config.encode.key,
        encode=_encode_identity(config),
        model_id=model_id,
        retry_failed=config.run.retry_failed,
        wave_items=config.run.wave_items,
        warn=say,
    )


def _encode_identity(config: UpscaleConfig) -> dict[str, object]:
    """The encode settings that change pixels or names; a faster compression does not redo an archive."""
    encode = config.encode
    identity: dict[str, object] = {"format": encode.format, "key": encode.key, "boundary": config.engine.boundary}
    if encode.depth != "keep":
        identity["depth"] = encode.depth
    qualities = {"jpeg": encode.jpeg_quality, "webp": encode.webp_quality, "avif": encode.avif_quality}
    lossy = qualities if encode.format == SAME else {encode.format: qualities.get(encode.format)}
    return identity | {f"{name}_quality": quality for name, quality in lossy.items() if quality is not None}


def _announcement(waves: Waves) -> str:
    counts = waves.counts
    parts = [f"{counts.items} items in the catalog: {counts.todo} to restore"]
    if counts.done:
        parts.append(f"{counts.done} done already")
    if counts.waiting:
        parts.append(f"{counts.waiting} failed earlier and wait for a mend (run.retry_failed)")
    if counts.invalid:
        parts.append(f"{counts.invalid.total()} invalid")
    if waves.number > 1:
        parts.append(f"in {waves.number} waves")
    return ", ".join(parts)


def _outcomes(
    config: UpscaleConfig,
    waves: Waves,
    weights: bytes,
    run_id: str,
    overseer: Overseer,
    cluster_ends: ExitStack,
    say: Callable[[str], None],
    stages: Stages,
) -> Iterator[list[Outcome]]:
    """Every outcome of the run, recorded in the manifest before it comes out here.

    stages: are told their workers once they are known.
    """
    try:
        if not waves.counts.to_account:
            manifest.settle(config.output)  # the last run may have been killed before it could
            return
        restore = _restorer(config, waves.counts.todo, weights, run_id, overseer, cluster_ends, say, stages)
        for wave in range(waves.number):
            overseer.check()
            yield from _of_wave(waves.plan(wave), config.output, run_id, restore)
    except (ray.exceptions.RayError, StorageError) as error:
        if _is_a_bug(error):
            raise
        raise NotFinished(f"the run stopped early and can be resumed: {error}") from error
    finally:
        if overseer.breaker.tripped in OF_THE_STORE:
            with suppress(StorageError):  # then the rows stay, as failed by what ended the run
                upkeep.take_back(config.output, run_id, overseer.breaker.tripped)


def _of_wave(
    plan: Plan, output: str, run_id: str, restore: Callable[[Plan], Iterator[list[Outcome]]]
) -> Iterator[list[Outcome]]:
    """The outcomes of a wave; then the manifest is made tidy, so that it never has the parts of more than one."""
    yield from _record_invalid(plan.invalid, output, run_id)
    if plan.todo:
        yield from restore(plan)
    if plan.todo or plan.invalid:
        manifest.settle(output)
        if upkeep.needs_compaction(output):
            upkeep.compact(output)


def _restorer(
    config: UpscaleConfig,
    todo: int,
    weights: bytes,
    run_id: str,
    overseer: Overseer,
    cluster_ends: ExitStack,
    say: Callable[[str], None],
    stages: Stages,
) -> Callable[[Plan], Iterator[list[Outcome]]]:
    """What restores the items of a plan, on a cluster joined with the first that has any. todo: of all plans."""

    @cache
    def prepared() -> tuple[Placement, Metrics]:
        own = cluster_ends.enter_context(cluster.joined(say, config.run.metrics_port))
        cluster_ends.callback(graph.abandon, run_id)
        overseer.stop.listen(draining=True)
        placement = place(config, own, say)
        stages.workers = {
            "read": placement.read_tasks,
            "restore": placement.largest,
            "write": placement.write_tasks,
        }
        metrics = Metrics(todo, placement)
        cluster_ends.callback(metrics.end)
        return placement, metrics

    def restore(plan: Plan) -> Iterator[list[Outcome]]:
        placement, metrics = prepared()
        ledger = open_ledger(config.run.crash_tries)  # of this plan only: accounts grow with the units
        flow = _restored(config, plan, weights, run_id, placement, ledger)
        for unit in overseer.units(flow, ledger, cluster.Crowding(placement), metrics.look):
            metrics.add(unit)
            yield unit

    return restore


def place(config: UpscaleConfig, own: bool, say: Callable[[str], None]) -> Placement:
    """Where the stages run; a cluster of our own never grows, so what does not fit now never will."""
    placement = cluster.place(
        gpus=config.restore.gpus,
        threads=config.restore.threads,
        smallest=config.restore.replicas.min,
        largest=config.restore.replicas.max,
        read_cpus=config.read.cpus,
        write_cpus=config.write.cpus,
        read_tasks=config.read.tasks,
        write_tasks=config.write.tasks,
        task_resource=config.run.task_resource,
    )
    if problem := cluster.unmet(placement):
        if own:
            raise ConfigError(problem)
        say(f"warning: {problem}, or wait until the cluster grows")
    return placement


def _restored(
    config: UpscaleConfig, plan: Plan, weights: bytes, run_id: str, placement: Placement, ledger: Any
) -> Iterator[list[Outcome]]:
    """Units of images that fit into memory first, then those without limit, one by one."""
    by_id = {item.item_id: item for item in plan.todo}
    whole, large = split_by_size(plan.todo, config.restore.whole_megapixels * 1e6)
    units = list(units_of(config, whole))
    chosen = settings(config, plan.attempts, weights, run_id)
    for unit in graph.outcomes(units, chosen, placement, ledger) if units else ():
        large += [by_id[outcome.item_id] for outcome in unit if outcome.status == DEFERRED]
        yield [outcome for outcome in unit if outcome.status != DEFERRED]
    if large:
        yield from graph.large_outcomes(large, chosen, placement, ledger)


def units_of(config: UpscaleConfig, items: Sequence[Item]) -> Iterator[list[Item]]:
    """The work units of items that are restored whole."""
    return cut_units(items, megapixels=config.restore.unit_megapixels, most_items=config.restore.unit_items)


def settings(config: UpscaleConfig, attempts: dict[str, int], weights: bytes, run_id: str) -> graph.Settings:
    """What the stages need to know of a run. attempts: earlier ones, by item id."""
    return graph.Settings(
        run_id=run_id,
        output=config.output,
        software=SOFTWARE,
        weights=weights,
        precision=config.engine.precision,
        compile=config.engine.compile,
        boundary=config.engine.boundary,
        limits=ReadLimits(
            config.limits.lr_pixels, config.limits.bytes, config.limits.kernel, config.restore.whole_megapixels * 1e6
        ),
        encoding=_encoding(config),
        attempts=attempts,
        scratch=config.restore.scratch,
        seconds={"read": config.read.seconds, "restore": config.restore.seconds, "write": config.write.seconds},
    )


def _encoding(config: UpscaleConfig) -> Encoding:
    encode = config.encode
    options = images.Options(
        depth=encode.depth,
        png_level=encode.png_level,
        tiff_compression=encode.tiff_compression,
        jpeg_quality=encode.jpeg_quality,
        webp_quality=encode.webp_quality,
        avif_quality=encode.avif_quality,
    )
    return Encoding(encode.format, options, encode.provenance)


def _record_invalid(invalid: list[Outcome], output: str, run_id: str) -> Iterator[list[Outcome]]:
    now = datetime.now(UTC)
    for start in range(0, len(invalid), _ROWS_PER_PART):
        rows = [
            replace(outcome, run_id=run_id, software=SOFTWARE, written_at=now)
            for outcome in invalid[start : start + _ROWS_PER_PART]
        ]
        manifest.write_part(output, run_id, rows)
        yield rows


def _is_a_bug(error: BaseException) -> bool:
    """A task that raised something of its own, other than a storage that stayed away."""
    if not isinstance(error, ray.exceptions.RayTaskError):
        return False
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, StorageError):
            return False
        cause = getattr(cause, "cause", None) or cause.__cause__
    return True


def _account(summary: Summary, progress: Progress, planned: int, started: datetime) -> None:
    tally = progress.tally
    summary.done, summary.failures, summary.flagged = tally.done, dict(tally.failures), tally.flagged
    summary.missing = planned - tally.count
    summary.lr_megapixels, summary.hr_megapixels = tally.lr_pixels / 1e6, tally.hr_pixels / 1e6
    summary.seconds = (datetime.now(UTC) - started).total_seconds()


def _prove_writable(summary: Summary, config: UpscaleConfig, started: datetime) -> None:
    """The first record says the run is under way; an output that refuses it stops the run here."""
    try:
        _write_record(summary, config, started)
    except StorageError as error:
        raise _unwritable(config.output, error) from None


def _unwritable(output: str, error: StorageError) -> UnfoldError:
    if ERROR_CODES[error.code].error_class == TRANSIENT:
        return error
    return ConfigError(f"output: {output} cannot be written to: {error}")


def _write_last_record(summary: Summary, config: UpscaleConfig, started: datetime, say: Callable[[str], None]) -> None:
    """The manifest is the truth, so a record that cannot be written must not hide why the run ended."""
    try:
        _write_record(summary, config, started)
    except StorageError as error:
        say(f"warning: the run record was not written: {error}")


def _write_record(summary: Summary, config: UpscaleConfig, started: datetime) -> None:
    record: dict[str, Any] = {
        **asdict(summary),
        "started": started.isoformat(),
        "ended": datetime.now(UTC).isoformat(),
        "config": dump(config),
        "versions": {name: _version(name) for name in ("unfold", "ray", "torch", "numpy", "pillow", "pyarrow")},
        "python": platform.python_version(),
    }
    uri = uris.join(config.output, "run", f"{summary.run_id}.json")
    storage.write_bytes(uri, json.dumps(record, indent=2).encode())
