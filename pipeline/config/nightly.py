"""The settings of jobs/restore_nightly.py: those of the main job, and what is indexed before it."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from pipeline.config.index import ENDINGS
from pipeline.config.section import Count, Section, Text, Uri
from pipeline.config.upscale import UpscaleConfig


class NightlyIndexSection(Section):
    """The prefix that is indexed into `catalog` before each run."""

    prefix: Uri
    """URI of the folder whose images are restored, with all folders in it"""
    headers: bool = False
    """read width, height, mode and pages of new and changed images: one row a page, better plans"""
    endings: Annotated[list[Text], Field(min_length=1)] = ENDINGS
    """endings of image names, in any case"""
    exclude: list[Text] = []
    """patterns of paths below the prefix that are left out, such as restored/*"""
    readers: Count = 32
    """sidecars and headers read at once"""


class NightlyConfig(UpscaleConfig):
    """Settings of jobs/restore_nightly.py. `catalog` is the folder that the index keeps."""

    index: NightlyIndexSection
    """what is indexed before the run"""

    @model_validator(mode="after")
    def _catalog_is_a_folder_of_the_index(self) -> Self:
        if self.catalog.rpartition("/")[2].rpartition(".")[2] in ("csv", "parquet", "jsonl"):
            raise ValueError(f"catalog = {self.catalog} must be a folder, which the index fills; a file stays as it is")
        return self
