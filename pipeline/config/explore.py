"""The settings of jobs/explore_settings.py, as conf/explore_settings.yaml lists them."""

from typing import Annotated

from pydantic import Field

from pipeline.config.section import Count, Kernel, Section, Text, Uri
from pipeline.config.upscale import DefaultsSection, EngineSection, LimitsSection, ModelSection

Sigma = Annotated[float, Field(ge=0, le=255)]


class GridSection(Section):
    """What is tried: every kernel with every sigma, and what the catalog says of the item."""

    kernels: Annotated[list[Kernel], Field(min_length=1)] = [
        "delta",
        "gaussian(0.8)",
        "gaussian(1.2)",
        "gaussian(1.6)",
        "gaussian(2.2)",
        "disk(1.5)",
        "disk(2.5)",
        "bicubic",
    ]
    """kernel specifications (lengths in HR pixels), or URIs of kernel files"""
    sigmas: Annotated[list[Sigma], Field(min_length=1)] = [0.0, 2.55, 7.65]
    """noise standard deviations in grey levels of 0-255"""


class ExploreConfig(Section):
    """Settings of jobs/explore_settings.py."""

    catalog: Uri
    """URI of the table of items, as for jobs/upscale_archive.py"""
    catalog_root: Uri | None = None
    """URI that relative URIs in the catalog are below; null takes the catalog's folder"""
    page: Uri
    """URI of the HTML file to write"""
    items: list[Text] = []
    """items to look at: ids, URIs or ends of URIs; empty takes a sample"""
    sample: Count = 4
    """items to look at where none is named, spread evenly over the catalog"""
    side: Annotated[int, Field(ge=64, le=2048)] = 320
    """HR pixels of a picture's side, at most: the busiest part of each item"""
    grid: GridSection = GridSection()
    defaults: DefaultsSection = DefaultsSection()
    model: ModelSection = ModelSection()
    engine: EngineSection = EngineSection()
    limits: LimitsSection = LimitsSection()
