"""One USRNet replica: the actor that holds weights. The only state in the flow.

Torch is imported when the actor starts, so that CPU workers, which import this module to call
other things of the flow, never load it.
"""

import io
from typing import TYPE_CHECKING

import pyarrow as pa
import ray

from pipeline.data.schema import table_to_items, table_to_work, work_to_table
from pipeline.flow.ledger import Watch
from pipeline.records import Work
from pipeline.stages.read import started

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

    def __call__(self, unit: pa.Table, weights: "ray.ObjectRef[bytes]", watch: Watch) -> pa.Table:
        return work_to_table(watch(table_to_work(unit), lambda works: self._restored(works, weights)))

    def _restored(self, works: list[Work], weights: "ray.ObjectRef[bytes]") -> list[Work]:
        from pipeline.stages.restore import restore

        if self._loaded is None:
            self._loaded = self._load(ray.get(weights))
        restorer, model_id = self._loaded
        return restore(works, restorer=restorer, model_id=model_id, boundary=self._boundary)

    def _load(self, weights: bytes) -> "tuple[Restorer, str]":
        import torch

        from pipeline.model.checkpoint import load_usrnet, model_id
        from pipeline.model.restore import Restorer

        torch.set_num_threads(self._threads)
        net = load_usrnet(io.BytesIO(weights))
        return Restorer(net, precision=self._precision, compile=self._compile), model_id(net)


class WindowReplica(Replica):
    """Restores images without limit, each from storage to storage."""

    def __call__(  # type: ignore[override]
        self,
        unit: pa.Table,
        weights: "ray.ObjectRef[bytes]",
        limits: "ReadLimits",
        encoding: "Encoding",
        place: "Place",
        software: str,
        watch: Watch,
    ) -> pa.Table:
        from pipeline.stages.windows import restore_windows

        if self._loaded is None:
            self._loaded = self._load(ray.get(weights))
        restorer, model_id = self._loaded

        def step(works: list[Work]) -> list[Work]:
            items = [work.item for work in works]
            return restore_windows(
                items,
                restorer=restorer,
                model_id=model_id,
                limits=limits,
                encoding=encoding,
                place=place,
                software=software,
            )

        return work_to_table(watch([started(item) for item in table_to_items(unit)], step))
