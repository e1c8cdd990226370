"""One USRNet replica: the actor that holds weights. The only state in the flow.

Torch is imported when the actor starts, so that CPU workers, which import this module to call
other things of the flow, never load it.
"""

import io
from dataclasses import replace
from typing import TYPE_CHECKING

import pyarrow as pa
import ray

from pipeline.data import manifest
from pipeline.data.schema import outcomes_to_table, table_to_items, table_to_work, work_to_table

if TYPE_CHECKING:
    from pipeline.model.layout import BoundaryMode
    from pipeline.model.restore import Restorer
    from pipeline.stages.read import ReadLimits
    from pipeline.stages.windows import Place
    from pipeline.stages.write import Encoding


class Replica:
    """Restores one work unit a call.

    The weights come by reference with the first call, not with the constructor: an actor whose
    constructor needs an object cannot be restarted once that object is lost.
    """

    def __init__(self, precision: str, compile: str, boundary: "BoundaryMode", threads: int) -> None:
        self._precision, self._compile, self._boundary, self._threads = precision, compile, boundary, threads
        self._loaded: tuple[Restorer, str] | None = None

    def __call__(self, unit: pa.Table, weights: "ray.ObjectRef[bytes]") -> pa.Table:
        from pipeline.stages.restore import restore

        if self._loaded is None:
            self._loaded = self._load(ray.get(weights))
        restorer, model_id = self._loaded
        works = restore(table_to_work(unit), restorer=restorer, model_id=model_id, boundary=self._boundary)
        return work_to_table(works)

    def _load(self, weights: bytes) -> "tuple[Restorer, str]":
        import torch

        from pipeline.model.checkpoint import load_usrnet, model_id
        from pipeline.model.restore import Restorer

        torch.set_num_threads(self._threads)
        net = load_usrnet(io.BytesIO(weights))
        return Restorer(net, precision=self._precision, compile=self._compile), model_id(net)


class WindowReplica(Replica):
    """Restores images without limit, each from storage to storage, and writes their manifest rows."""

    def __call__(  # type: ignore[override]
        self,
        unit: pa.Table,
        weights: "ray.ObjectRef[bytes]",
        limits: "ReadLimits",
        encoding: "Encoding",
        place: "Place",
        run_id: str,
        software: str,
        attempts: "ray.ObjectRef[dict[str, int]]",
    ) -> pa.Table:
        from pipeline.stages.windows import restore_windows

        if self._loaded is None:
            self._loaded = self._load(ray.get(weights))
        restorer, model_id = self._loaded
        works = restore_windows(
            table_to_items(unit),
            restorer=restorer,
            model_id=model_id,
            limits=limits,
            encoding=encoding,
            place=place,
            software=software,
        )
        tried = ray.get(attempts)
        written = [
            replace(work.outcome, run_id=run_id, software=software, attempts=tried.get(work.outcome.item_id, 0) + 1)
            for work in works
        ]
        manifest.write_part(place.output, run_id, written)
        return outcomes_to_table(written)
