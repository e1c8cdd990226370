"""The flow as a Ray Data graph: the one module that names Ray Data.

    units     one Arrow table = one block = one work unit
    read      CPU tasks: fetch, decode; waits on the network
    restore   actors, one USRNet replica each
    write     CPU tasks: encode, put; pixels leave the row here; one manifest part per unit
    outcomes  small rows, streamed to the driver as they happen

Every function gives exactly one row per row, in the same order on every attempt: Ray retries a
task by repeating it and takes what it has not seen yet by position.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import ray
import ray.data
from ray.data import ActorPoolStrategy, DataContext, Dataset, TaskPoolStrategy
from ray.data._internal.execution.streaming_executor import StreamingExecutor  # there is no public end

from pipeline.data import manifest
from pipeline.data.schema import (
    items_to_table,
    outcomes_to_table,
    table_to_items,
    table_to_outcomes,
    table_to_work,
    work_to_table,
)
from pipeline.errors import StorageError
from pipeline.flow.cluster import Placement
from pipeline.flow.ledger import Watch
from pipeline.flow.replica import Replica, WindowReplica
from pipeline.plan import halves, tapered
from pipeline.records import DEFERRED, STOPPED, Item, Outcome, Work
from pipeline.stages.read import ReadLimits, read, started
from pipeline.stages.windows import Place
from pipeline.stages.write import Encoding, write


@dataclass(frozen=True)
class Settings:
    """What the stages need to know, by value.

    attempts: earlier tries, by item id. scratch: local folder for large images. seconds: time limits,
    by stage, if there are any.
    """

    run_id: str
    output: str
    software: str
    weights: bytes
    precision: str
    compile: str
    boundary: str
    limits: ReadLimits
    encoding: Encoding
    attempts: dict[str, int]
    scratch: str | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)


def outcomes(
    units: Sequence[list[Item]],
    settings: Settings,
    placement: Placement,
    ledger: Any = None,
    replica: type[Replica] = Replica,
) -> Iterator[list[Outcome]]:
    """Restore the units, the last ones in parts; yields outcomes once their images and manifest part are written.

    ledger: the actor of `pipeline.flow.ledger`; None keeps no accounts. replica: the actor that
    restores, another one in benchmarks. Items that were stopped come out without a row.
    """
    watches = {stage: Watch(ledger, stage, settings.seconds.get(stage)) for stage in ("read", "restore", "write")}
    _set_context()
    ds = _one_block_each(tapered(units, placement.largest, halves))
    ds = _whole_blocks(
        ds,
        _read_unit,
        fn_kwargs={"limits": settings.limits, "encoding": settings.encoding, "watch": watches["read"]},
        num_cpus=placement.read_cpus,
        resources=dict(placement.task_resources),
        compute=TaskPoolStrategy(size=placement.read_tasks),
    )
    ds = _whole_blocks(
        ds,
        replica,
        fn_constructor_args=(settings.precision, settings.compile, settings.boundary, placement.threads),
        fn_kwargs={"weights": ray.put(settings.weights), "watch": watches["restore"]},
        num_cpus=placement.cpus,
        num_gpus=placement.gpus or None,
        compute=ActorPoolStrategy(
            min_size=placement.smallest,
            max_size=placement.largest,
            max_concurrent_calls_per_actor=2 if placement.gpus else 1,  # fetch the next unit meanwhile
        ),
    )
    ds = _whole_blocks(
        ds,
        _write_unit,
        fn_kwargs={
            "output": settings.output,
            "encoding": settings.encoding,
            "run_id": settings.run_id,
            "software": settings.software,
            "attempts": ray.put(settings.attempts),
            "watch": watches["write"],
        },
        num_cpus=placement.write_cpus,
        resources=dict(placement.task_resources),
        compute=TaskPoolStrategy(size=placement.write_tasks),
    )
    yield from _delivered(ds, settings.run_id)


def large_outcomes(
    items: Sequence[Item], settings: Settings, placement: Placement, ledger: Any = None
) -> Iterator[list[Outcome]]:
    """Restore images without limit, one a call: a stage that reads, restores and writes by windows."""
    _set_context()
    ds = _whole_blocks(
        _one_block_each([[item] for item in items]),
        WindowReplica,
        fn_constructor_args=(settings.precision, settings.compile, settings.boundary, placement.threads),
        fn_kwargs={
            "weights": ray.put(settings.weights),
            "limits": settings.limits,
            "encoding": settings.encoding,
            "place": Place(settings.output, settings.scratch),
            "software": settings.software,
            "watch": Watch(ledger, "restore", settings.seconds.get("restore")),
        },
        num_cpus=placement.cpus,
        num_gpus=placement.gpus or None,
        compute=ActorPoolStrategy(min_size=placement.smallest, max_size=placement.largest),
    )
    ds = _whole_blocks(
        ds,
        _record_unit,
        fn_kwargs={
            "output": settings.output,
            "run_id": settings.run_id,
            "software": settings.software,
            "attempts": ray.put(settings.attempts),
        },
        num_cpus=placement.write_cpus,
        resources=dict(placement.task_resources),
        compute=TaskPoolStrategy(size=placement.write_tasks),
    )
    yield from _delivered(ds, settings.run_id)


def _delivered(ds: Dataset, run_id: str) -> Iterator[list[Outcome]]:
    """Run the graph; each unit's outcomes as they come. The name lets `abandon` find it."""
    ds.set_name(run_id)
    for unit in ds.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        yield table_to_outcomes(unit)


def abandon(run_id: str) -> None:
    """End what is still under way of a run's flow, whose units nobody takes any more.

    Otherwise its replicas would hold their place in the cluster as long as this process lives.
    """
    for thread in threading.enumerate():
        if isinstance(thread, StreamingExecutor) and run_id in thread.name:
            thread.shutdown(force=True)


def _read_unit(unit: pa.Table, limits: ReadLimits, watch: Watch, encoding: Encoding | None = None) -> pa.Table:
    works = [started(item) for item in table_to_items(unit)]
    return work_to_table(
        watch(works, lambda part: read([work.item for work in part], limits=limits, encoding=encoding))
    )


def _write_unit(
    unit: pa.Table,
    output: str,
    encoding: Encoding,
    run_id: str,
    software: str,
    attempts: "ray.ObjectRef[dict[str, int]]",
    watch: Watch,
) -> pa.Table:
    works = watch(table_to_work(unit), lambda part: write(part, output=output, encoding=encoding, software=software))
    return outcomes_to_table(_recorded(works, output, run_id, software, ray.get(attempts)))


def _record_unit(
    unit: pa.Table, output: str, run_id: str, software: str, attempts: "ray.ObjectRef[dict[str, int]]"
) -> pa.Table:
    return outcomes_to_table(_recorded(table_to_work(unit), output, run_id, software, ray.get(attempts)))


def _recorded(works: list[Work], output: str, run_id: str, software: str, tried: dict[str, int]) -> list[Outcome]:
    """The outcomes, in the manifest; where it cannot be written they are left to the next run, with the reason.

    As a value and not raised: Ray would end the flow, and hand over the error without what caused it.
    """
    now = datetime.now(UTC)
    outcomes = [
        replace(
            work.outcome,
            run_id=run_id,
            software=software,
            attempts=tried.get(work.item.item_id, 0) + 1,
            written_at=work.outcome.written_at or now,
        )
        for work in works
    ]
    try:
        if final := [outcome for outcome in outcomes if outcome.status not in (STOPPED, DEFERRED)]:
            manifest.write_part(output, run_id, final)
    except StorageError as error:
        return [replace(outcome, status=STOPPED, error_code=error.code, error=str(error)) for outcome in outcomes]
    return outcomes


def _one_block_each(units: Sequence[list[Item]]) -> Dataset:
    return ray.data.from_arrow([items_to_table(unit) for unit in units])


def _whole_blocks(ds: Dataset, fn: Callable[..., pa.Table] | type, **options: Any) -> Dataset:
    """map_batches where one block is one call: a unit is neither merged with others nor cut.

    `map_batches` itself refuses batch_size=None for an operator with GPUs, and a whole number would
    merge units; `map_batches_internal` is the same without that refusal.
    """
    return ds.map_batches_internal(fn, batch_size=None, batch_format="pyarrow", zero_copy_batch=True, **options)


def _set_context() -> None:
    context = DataContext.get_current()
    context.enable_progress_bars = False  # the job shows its own
    context.target_max_block_size = None  # a unit stays one block, however large its pictures
    context.execution_no_progress_timeout_s = -1  # pipeline.flow.oversee watches, and says what is at work
    context.max_errored_blocks = 0  # a lost block would be lost items: better the job stops
