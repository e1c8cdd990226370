"""The settings of jobs/index_archive.py, as conf/index_archive.yaml lists them."""

from typing import Annotated, Literal

from pydantic import Field

from pipeline.config.section import Count, Kernel, Positive, Section, Text, Uri

ENDINGS = [".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp"]


class IndexDefaultsSection(Section):
    """For images whose sidecar does not say; what stays open here is left to the run's `defaults`."""

    kernel: Kernel | None = None
    """kernel specification (lengths in HR pixels), or URI of a kernel file"""
    sigma: Annotated[float, Field(ge=0, le=255)] | None = None
    """noise standard deviation in grey levels of 0-255"""
    scale: Count | None = None
    """super-resolution factor; 1 deblurs"""
    phase: Literal["center", "corner"] | None = None
    """where an LR pixel sits in its block of scale x scale HR pixels"""


class IndexConfig(Section):
    """Settings of jobs/index_archive.py."""

    prefix: Uri
    """URI of the folder whose images are indexed, with all folders in it"""
    catalog: Uri
    """URI of the folder that becomes the catalog"""
    defaults: IndexDefaultsSection = IndexDefaultsSection()
    headers: bool = False
    """read width, height, mode and pages of new and changed images: one row a page, better plans"""
    endings: Annotated[list[Text], Field(min_length=1)] = ENDINGS
    """endings of image names, in any case"""
    exclude: Annotated[list[Text], Field(default_factory=list)]
    """patterns of paths below the prefix that are left out, such as restored/*"""
    readers: Count = 32
    """sidecars and headers read at once"""
    lease_seconds: Positive = 60.0
    """seconds without a sign of life after which another indexing of this catalog is taken for dead"""
    progress_seconds: Positive = 5.0
    """seconds between progress lines"""
