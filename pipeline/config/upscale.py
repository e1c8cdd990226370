"""The settings of jobs/upscale_archive.py, as conf/upscale_archive.yaml lists them."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipeline.config.section import Count, Gpus, Kernel, Positive, Section, Share, Sigma, Template, Text, Uri

Quality = Annotated[int, Field(ge=1, le=100)]


class DefaultsSection(Section):
    """For items whose catalog row does not say; empty, so that nothing is assumed in silence."""

    kernel: Kernel | None = None
    """kernel specification (lengths in HR pixels), or URI of a kernel file"""
    sigma: Sigma = None
    """noise standard deviation in grey levels of 0-255; auto estimates it from each image"""
    scale: Count | None = None
    """super-resolution factor; 1 deblurs"""
    phase: Literal["center", "corner"] = "center"
    """where an LR pixel sits in its block of scale x scale HR pixels: real cameras center"""


class ModelSection(Section):
    """The network."""

    weights: Uri | None = None
    """URI of a USRNet checkpoint (.pth, .safetensors); null takes the packaged weights"""


class EngineSection(Section):
    """How an image is restored."""

    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """number format of the prior's convolutions; auto takes bf16 where the hardware has it"""
    compile: Literal["auto", "off", "on"] = "auto"
    """code of the prior: auto takes oneDNN's fused operators on a CPU, compiles frequent shapes on a GPU"""
    boundary: Literal["smooth", "circular"] = "smooth"
    """smooth extends images to periodic ones; circular is for synthetic, periodic inputs"""


class ReadSection(Section):
    """Tasks that fetch and decode."""

    cpus: Positive = 0.5
    """CPU share of one task"""
    tasks: Count | None = None
    """tasks at once, at most; null leaves it to the cluster's CPUs"""
    seconds: Positive = 600.0
    """time limit: for a work unit together, then for each of its items alone"""


class ReplicasSection(Section):
    """How many networks work side by side."""

    min: Count = 1
    """replicas to start with"""
    max: Count | None = None
    """replicas at most; null takes as many as the cluster has room for"""

    @model_validator(mode="after")
    def _min_up_to_max(self) -> Self:
        if self.max is not None and self.max < self.min:
            raise ValueError(f"must have max >= min, or max: null; min is {self.min}, max is {self.max}")
        return self


class RestoreSection(Section):
    """The actors that hold the network."""

    gpus: Gpus | None = None
    """GPUs of one replica, may be a fraction; null takes 1 where the cluster has GPUs, else 0"""
    threads: Count | None = None
    """CPU threads of a replica without GPU; null shares the CPUs among the replicas"""
    replicas: ReplicasSection = ReplicasSection()
    whole_megapixels: Positive = 100.0
    """HR megapixels up to which an image is restored whole; larger ones go by windows to a tiled TIFF"""
    scratch: Text | None = None
    """local folder for images restored by windows, with room for input and result; null is the system's"""
    unit_megapixels: Positive = 4.0
    """HR megapixels of one work unit"""
    unit_items: Count = 64
    """items of one work unit, at most"""
    seconds: Positive = 3600.0
    """time limit: for a work unit together, then for each of its items alone"""


class WriteSection(Section):
    """Tasks that encode and store."""

    cpus: Positive = 0.5
    """CPU share of one task"""
    tasks: Count | None = None
    """tasks at once, at most; null leaves it to the cluster's CPUs"""
    seconds: Positive = 600.0
    """time limit: for a work unit together, then for each of its items alone"""


class EncodeSection(Section):
    """The files that are written."""

    format: Literal["png", "tiff", "jpeg", "webp", "avif", "same"] = "png"
    """format of the results; same keeps the one that the input's name ends in, png where it ends in no other"""
    depth: Literal["keep", 8, 16] = "keep"
    """bits a sample; keep writes 16 for 16 and floats for floats, 8 and 16 write at most so many"""
    png_level: Annotated[int, Field(ge=0, le=9)] = 1
    """PNG compression level, 0 (none) to 9 (smallest, slowest)"""
    tiff_compression: Literal["deflate", "zstd", "lzw", "none"] = "deflate"
    """lossless compression of TIFF files; zstd is the quickest, deflate is read everywhere"""
    jpeg_quality: Quality = 95
    """JPEG quality, 1 to 100"""
    webp_quality: Quality = 90
    """WebP quality, 1 to 100; 100 is lossless"""
    avif_quality: Quality = 90
    """AVIF quality, 1 to 100"""
    provenance: bool = True
    """whether the results' XMP names software, model and scale"""
    key: Template | None = None
    """template of output keys: {key} {stem} {dir} {item_id} {scale} {page}; null mirrors the input"""


class LimitsSection(Section):
    """What is refused as over-limit."""

    scale: Count = 16
    """largest super-resolution factor"""
    kernel: Count = 512
    """largest side of a kernel, HR pixels"""
    lr_pixels: Count = 2**30
    """largest LR image, pixels; at most 2^28 where it must be decoded whole: anything but TIFF"""
    bytes: Count = 2**34
    """largest encoded input, bytes"""
    allowed_roots: Annotated[list[Uri], Field(min_length=1)] | None = None
    """URIs that images, kernels and ground truth must lie below; null takes whatever the catalog names"""


class RunSection(Section):
    """The run as a whole."""

    wave_items: Count = 1_000_000
    """items planned and restored together, about; a larger catalog is worked off in waves, to spare memory"""
    retry_failed: Literal["none", "transient", "all"] = "transient"
    """which of the items that failed in earlier runs are tried again"""
    max_failed_share: Share = 0.0
    """failed share of this run's items (0 to 1) up to which the job still exits with 0"""
    crash_tries: Count = 2
    """workers that an item alone may take with it before it fails as worker-crash"""
    breaker_share: Share = 0.5
    """share of the last items beyond which one error of storage or workers ends the run, to be resumed"""
    breaker_items: Count = 100
    """how many last items that share is taken of"""
    stall_seconds: Positive | None = None
    """seconds without a finished unit after which the run gives up, to be resumed; null: thrice the longest limit"""
    drain_seconds: Annotated[float, Field(ge=0)] = 2.0
    """seconds that work at hand may take after SIGTERM; Ray kills a stopped job after 3"""
    lease_seconds: Positive = 60.0
    """seconds without a sign of life after which another run takes this one for dead"""
    progress_seconds: Positive = 5.0
    """seconds between progress lines where there is no terminal"""
    report: bool = False
    """write <output>/report.html at the end, as jobs/report.py does"""
    log: Literal["text", "json"] = "text"
    """text for people, or json: every line an object with time and event"""
    metrics_port: Annotated[int, Field(ge=1024, le=65535)] | None = None
    """port for Prometheus on a cluster that the job starts itself; null leaves it to Ray"""
    task_resource: Text | None = None
    """custom Ray resource of the nodes that read and write, as on a cluster with GPU nodes; null takes any node"""


class PlanSection(Section):
    """What `--plan` estimates from."""

    rates: Literal["measure", "manifest"] = "measure"
    """measure restores a few items on the cluster; manifest takes the newest run on this output"""
    seconds: Positive = 60.0
    """time to measure for, about; longer is more exact"""
    price_per_hour: Annotated[float, Field(ge=0)] | None = None
    """price of one GPU for an hour, or of one CPU where there are no GPUs; null leaves the cost out"""


class UpscaleConfig(Section):
    """Settings of jobs/upscale_archive.py."""

    catalog: Uri
    """URI of the table of items: .parquet, .csv or .jsonl, one file or a folder of them"""
    catalog_root: Uri | None = None
    """URI that relative URIs in the catalog are below; null takes the catalog's folder"""
    output: Uri
    """URI prefix for images/, manifest/ and run/"""
    defaults: DefaultsSection = DefaultsSection()
    model: ModelSection = ModelSection()
    engine: EngineSection = EngineSection()
    read: ReadSection = ReadSection()
    restore: RestoreSection = RestoreSection()
    write: WriteSection = WriteSection()
    encode: EncodeSection = EncodeSection()
    limits: LimitsSection = LimitsSection()
    run: RunSection = RunSection()
    plan: PlanSection = PlanSection()

    @model_validator(mode="after")
    def _default_scale_within_limits(self) -> Self:
        if self.defaults.scale is not None and self.defaults.scale > self.limits.scale:
            raise ValueError(
                f"defaults.scale = {self.defaults.scale} must not exceed limits.scale = {self.limits.scale}; "
                "lower one or raise the other"
            )
        return self
