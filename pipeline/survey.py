"""What an archive asks for and what is done already: catalog and manifest -> plans. No Ray, no torch.

Reads the catalog, each kernel file once, and the manifest; never the images.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import cache
from math import ceil

from pipeline import uris
from pipeline.data import kernels
from pipeline.data.catalog import catalog_root, most_rows, read_catalog
from pipeline.errors import ConfigError, ItemError
from pipeline.physics.kernels import is_analytic
from pipeline.plan import ENDINGS, SAME, SAME_ENDING, digest, invalid_outcome, work_id
from pipeline.records import Item
from pipeline.resolve import Defaults, Limits, item_id_of, resolve, uri_of
from pipeline.waves import Numbered, Waves


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
    wave_items: int,
    warn: Callable[[str], None],
) -> Waves:
    """The plans of a run. encode: the settings that decide the output, `format` among them.

    wave_items: items that are planned together, about. warn: is told of kernel files that seem to be
    shifted already, once each.

    Raises `CatalogError` when there is no usable catalog, `ConfigError` when results would replace
    the archive's own images, `StorageError` when the manifest cannot be read.
    """

    def resolved() -> Iterator[Numbered]:
        below = catalog_root(catalog, root)
        known_kernels = _Kernels(warn)
        for number, row in enumerate(read_catalog(catalog)):
            try:
                item = resolve(row, defaults=defaults, root=below, key_template=key_template, limits=limits)
                _refuse_overwriting(item, output)
                item = known_kernels.digested(item)
                yield number, replace(item, work_id=work_id(item, model_id=model_id, encode=encode))
            except ItemError as error:
                # what besides the row decides whether it is valid is part of a failed row's work id
                circumstances = digest(model_id, repr(defaults), repr(limits))
                work = digest(circumstances, repr(sorted(row.items())), error.code)
                item_id = item_id_of(row, below, number)
                yield number, invalid_outcome(error, item_id, uri=uri_of(row, below), work_id=work)

    format = str(encode["format"])
    ending = SAME_ENDING if format == SAME else ENDINGS[format][0]
    number = max(1, ceil(most_rows(catalog) / wave_items))
    return Waves(resolved(), output, number=number, output_ending=ending, retry_failed=retry_failed)


def _refuse_overwriting(item: Item, output: str) -> None:
    """An image among the results would be replaced by its own result, and the archive lost."""
    results = uris.join(output, "images") + "/"
    if lost := next((uri for uri in (item.uri, item.hr_uri) if uri and uri.startswith(results)), None):
        raise ConfigError(f"output: the input {lost} lies below {results}, where results are written; choose another")


class _Kernels:
    """The kernels of one catalog: an archive shares few among many images, and each file is fetched once."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._fetch = cache(kernels.fetch)
        self._digest_of = cache(self._digest)  # the error as a value: one unreadable kernel is asked for once
        self._check_centroid = cache(self._warn_if_shifted)

    def digested(self, item: Item) -> Item:
        """`item` with its kernel's digest. Raises `ItemError` where there is no such kernel."""
        if item.kernel_values is not None:
            return replace(item, kernel_digest=kernels.values_digest(item.kernel_values))
        kernel_digest = self._digest_of(item.kernel)
        if isinstance(kernel_digest, ItemError):
            raise kernel_digest
        if item.phase == "center" and not is_analytic(item.kernel):
            self._check_centroid(item.kernel, item.scale)
        return replace(item, kernel_digest=kernel_digest)

    def _digest(self, spec: str) -> str | ItemError:
        try:
            return kernels.kernel_digest(spec, fetch=self._fetch)
        except ItemError as error:
            return ItemError(error.code, f"kernel {spec!r}: {error}")

    def _warn_if_shifted(self, spec: str, scale: int) -> None:
        """Tell of a kernel file that would be shifted twice; one that is no kernel fails at read, not here."""
        with suppress(ItemError):
            kernel = kernels.load_kernel(spec, scale, "corner", fetch=self._fetch)
            if message := kernels.warn_shifted(kernel, scale):
                self._warn(f"warning: kernel {spec}: {message}")
