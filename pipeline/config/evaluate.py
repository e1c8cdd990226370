"""The settings of jobs/evaluate.py, as conf/evaluate.yaml lists them."""

from typing import Annotated, Literal

from pydantic import Field

from pipeline.config.section import Count, Gpus, Positive, Section, Text, Uri

Scales = Annotated[list[Annotated[int, Field(ge=1, le=16)]], Field(min_length=1)]
Sigmas = Annotated[list[Annotated[float, Field(ge=0, le=255)]], Field(min_length=1)]

SCALES = [2, 3, 4]
SIGMAS = [0.0, 2.55, 7.65]
PACKAGED: list[str] = []


class Table1Section(Section):
    """Any kernel, scale and noise level: RGB PSNR."""

    kernels: Uri | None = None
    """URI of the kernels, such as paper_kernels.npz#table1; null leaves the table out"""
    scales: Scales = SCALES
    """super-resolution factors"""
    sigmas: Sigmas = SIGMAS
    """noise standard deviations in grey levels of 0-255"""


class Table2Section(Section):
    """Bicubic degradation: PSNR of Y."""

    scales: list[Annotated[int, Field(ge=1, le=16)]] = SCALES
    """super-resolution factors; [] leaves the table out"""
    kernels: Text | None = None
    """URI of what the network is told, with {scale} in it; null takes the analytic bicubic kernel"""


class EvaluateConfig(Section):
    """Settings of jobs/evaluate.py."""

    images: Uri
    """URI of a folder of HR images"""
    output: Uri
    """URI prefix for cells/ (Parquet) and tables.md"""
    weights: list[Uri] = PACKAGED
    """URIs of USRNet checkpoints; [] takes the packaged weights"""
    baseline: Literal["bicubic", "none"] = "bicubic"
    """what is measured beside the networks"""
    published: Uri | None = None
    """URI of a JSON file of published figures that are set beside the measured ones"""
    table1: Table1Section = Table1Section()
    table2: Table2Section = Table2Section()
    gpus: Gpus | None = None
    """GPUs of one worker; null takes 1 where the cluster has GPUs, else 0"""
    threads: Count | None = None
    """CPU threads of a worker without GPU; null shares the CPUs among the workers"""
    workers: Count | None = None
    """workers at most; null takes as many as the cluster has room for"""
    progress_seconds: Positive = 5.0
    """seconds between progress lines"""
