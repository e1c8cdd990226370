"""The settings of jobs/report.py, as conf/report.yaml lists them."""

from typing import Annotated

from pydantic import Field

from pipeline.config.section import Section, Text, Uri


class ReportConfig(Section):
    """Settings of jobs/report.py."""

    output: Uri
    """URI prefix that a run of jobs/upscale_archive.py wrote to"""
    page: Uri | None = None
    """URI of the HTML file to write; null takes <output>/report.html"""
    run_id: Text | None = None
    """run whose throughput is drawn; null takes the newest"""
    pictures: Annotated[int, Field(ge=0, le=50)] = 6
    """pairs in each group of the gallery"""
