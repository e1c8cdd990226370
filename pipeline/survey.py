"""What an archive asks for and what is done already: catalog and manifest -> plan. No Ray, no torch.

Reads the catalog, each kernel file once, and the manifest; never the images.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import cache

from pipeline.data import kernels, manifest
from pipeline.data.catalog import catalog_root, read_catalog
from pipeline.errors import ItemError
from pipeline.physics.kernels import is_analytic
from pipeline.plan import ENDINGS, SAME, SAME_ENDING, Plan, digest, invalid_outcome, make_plan, work_id
from pipeline.records import Item, Outcome
from pipeline.resolve import Defaults, Limits, item_id_of, resolve, uri_of


def survey(
    catalog: str,
    output: str,
    *,
    root: str | None,
    defaults: Defaults,
    limits: Limits,
    key_template: str | None,
    encode: Mapping[str, object],
    model_id: str,
    retry_failed: str,
    warn: Callable[[str], None],
) -> Plan:
    """The plan of a run. encode: the settings that decide the output, `format` among them.

    warn: is told of kernel files that seem to be shifted already, once each.

    Raises `CatalogError` when there is no usable catalog, `StorageError` when the manifest cannot
    be read.
    """
    resolved = _resolved(
        catalog,
        catalog_root(catalog, root),
        lambda row, below: resolve(row, defaults=defaults, root=below, key_template=key_template, limits=limits),
        lambda item: work_id(item, model_id=model_id, encode=encode),
        digest(model_id, repr(defaults), repr(limits)),
        warn,
    )
    format = str(encode["format"])
    ending = SAME_ENDING if format == SAME else ENDINGS[format][0]
    return make_plan(resolved, manifest.known(output), output_ending=ending, retry_failed=retry_failed)


def _resolved(
    catalog: str,
    root: str,
    resolve_row: Callable[[Mapping[str, object], str], Item],
    work_id_of: Callable[[Item], str],
    circumstances: str,
    warn: Callable[[str], None],
) -> Iterator[Item | Outcome]:
    """Every row as an item with its work id, or as the failed outcome of a row that is none.

    circumstances: what besides the row decides whether it is valid; part of a failed row's work id.
    """
    digest_of = cache(_kernel_digest)  # an archive shares few kernels among many images
    check_centroid = cache(lambda spec, scale: _check_centroid(spec, scale, warn))
    for number, row in enumerate(read_catalog(catalog)):
        try:
            item = _with_kernel_digest(resolve_row(row, root), digest_of)
            if item.phase == "center" and item.kernel_values is None and not is_analytic(item.kernel):
                check_centroid(item.kernel, item.scale)
            yield replace(item, work_id=work_id_of(item))
        except ItemError as error:
            yield invalid_outcome(
                error,
                item_id_of(row, root, number),
                uri=uri_of(row, root),
                work_id=digest(circumstances, repr(sorted(row.items())), error.code),
            )


def _with_kernel_digest(item: Item, digest_of: Callable[[str], str | ItemError]) -> Item:
    if item.kernel_values is not None:
        return replace(item, kernel_digest=kernels.values_digest(item.kernel_values))
    kernel_digest = digest_of(item.kernel)
    if isinstance(kernel_digest, ItemError):
        raise kernel_digest
    return replace(item, kernel_digest=kernel_digest)


def _kernel_digest(spec: str) -> str | ItemError:
    """The error as a value, so that one unreadable kernel is asked for once, not once an item."""
    try:
        return kernels.kernel_digest(spec)
    except ItemError as error:
        return ItemError(error.code, f"kernel {spec!r}: {error}")


def _check_centroid(spec: str, scale: int, warn: Callable[[str], None]) -> None:
    """Tell of a kernel file that would be shifted twice; one that is no kernel fails at read, not here."""
    with suppress(ItemError):
        if message := kernels.warn_shifted(kernels.load_kernel(spec, scale, "corner"), scale):
            warn(f"warning: kernel {spec}: {message}")
