"""The settings of jobs/train_usrnet.py and jobs/pack_training.py, as conf/train_usrnet.yaml lists them."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipeline.config.section import Count, Kernel, Positive, Section, Share, Uri

Whole = Annotated[int, Field(ge=0)]
Sigma = Annotated[float, Field(ge=0, le=255)]


class WorkersSection(Section):
    """Who computes."""

    count: Count = 1
    """workers that share every batch (DDP)"""
    gpus: Annotated[int, Field(ge=0, le=1)] | None = None
    """GPUs of one worker, 0 or 1; null takes 1 where the cluster has GPUs for all"""
    threads: Count | None = None
    """CPU threads of a worker without GPU; null shares the CPUs among the workers"""
    loaders: Whole | None = None
    """processes of each worker that crop ahead; null takes 4 with a GPU and none without"""
    restarts: Whole = 3
    """times that lost workers are started again, from the last state"""


class DegradationSection(Section):
    """What is learned to invert; set these to your archive's."""

    scales: Annotated[list[Count], Field(min_length=1)] = [1, 2, 3, 4]
    """super-resolution factors, one of them a batch"""
    sigma_min: Sigma = 0.0
    """least noise, grey levels of 0-255"""
    sigma_max: Sigma = 25.0
    """most noise; between the two it is uniform"""
    noiseless: Share = 0.125
    """share of pairs with sigma exactly 0"""
    gray: Share = 0.125
    """share of gray pairs with gray noise"""
    kernels: list[Kernel] = []
    """your archive's kernels: specifications or files, as in a catalog; others are drawn at random"""
    own_kernels: Share = 0.5
    """share of pairs that are blurred by one of `kernels`, where there are any"""
    phase: Literal["center", "corner"] = "center"
    """where an LR pixel sits in its block of scale x scale HR pixels, for `kernels`"""

    @model_validator(mode="after")
    def _min_up_to_max(self) -> Self:
        if self.sigma_max < self.sigma_min:
            raise ValueError(f"must have sigma_max >= sigma_min; they are {self.sigma_max:g} and {self.sigma_min:g}")
        return self


class RecipeSection(Section):
    """How it is learned, and how fast."""

    steps: Count = 4500
    """parameter updates"""
    batch: Count = 8
    """crops of one step, over all workers; all share one scale"""
    patch: Annotated[int, Field(ge=32)] = 96
    """HR pixels of a crop's side, a multiple of every scale"""
    learning_rate: Positive = 5e-4
    """at its highest, after the warm-up"""
    schedule: Literal["cosine", "milestones"] = "cosine"
    """the rate falls along a cosine up to the last step, or is halved at each milestone"""
    milestones: list[Count] = []
    """steps at which the rate is halved"""
    warmup: Whole = 100
    """steps of linear warm-up"""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.998
    """share of the moving average of the weights that a step keeps, 0 to below 1"""
    clip: Positive = 1.0
    """largest norm of the gradient"""
    precision: Literal["fp32", "bf16"] = "fp32"
    """number format of the prior's convolutions"""
    compile: bool = False
    """compile the prior; pays on a GPU, needs a C++ compiler"""
    loss: Literal["l1", "gan"] = "l1"
    """l1 trains a USRNet, gan fine-tunes one to a USRGAN"""
    seed: Whole = 0
    """of everything random"""

    @model_validator(mode="after")
    def _milestones_where_wanted(self) -> Self:
        if (self.schedule == "milestones") != bool(self.milestones):
            raise ValueError("must list milestones with schedule: milestones, and only then")
        return self


class GanSection(Section):
    """The losses of recipe.loss = gan."""

    pixel: Annotated[float, Field(ge=0)] = 1.0
    """weight of L1"""
    perceptual: Annotated[float, Field(ge=0)] = 1.0
    """weight of the perceptual loss"""
    adversarial: Annotated[float, Field(ge=0)] = 0.005
    """weight of the relativistic adversarial loss"""
    features: Uri | None = None
    """URI of VGG weights of torchvision (.pth, .safetensors); null takes a small network of random filters"""
    learning_rate: Positive = 1e-5
    """of the discriminator"""
    width: Count = 64
    """channels of the discriminator's first level"""


class TrainConfig(Section):
    """Settings of jobs/train_usrnet.py."""

    photographs: Uri
    """URI of a folder of clean HR photographs, searched recursively"""
    megapixels: Positive = 500.0
    """photographs are loaded up to this many; 1000 take 3 GB of memory"""
    output: Uri
    """URI of a folder for the states, the weights and the curves"""
    weights: Uri | None = None
    """URI of the checkpoint to start from; `packaged` for the packaged one; null starts the tiny network anew"""
    validation: Whole = 12
    """photographs held out, and never more than one in five"""
    every: Count = 100
    """steps between two progress lines, validations and states"""
    keep: Count = 3
    """newest states that are kept"""
    seconds: Positive | None = None
    """stop after so long, with exit code 4: run again to go on; null trains to the end"""
    workers: WorkersSection = WorkersSection()
    degradation: DegradationSection = DegradationSection()
    recipe: RecipeSection = RecipeSection()
    gan: GanSection = GanSection()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        scales, patch = self.degradation.scales, self.recipe.patch
        if any(patch % scale for scale in scales):
            raise ValueError(f"must have a recipe.patch that is a multiple of every scale; {patch} is not, of {scales}")
        if self.recipe.batch % self.workers.count:
            raise ValueError(
                f"must have a recipe.batch that {self.workers.count} workers can share evenly; "
                f"{self.recipe.batch} is not a multiple"
            )
        if self.recipe.loss == "gan" and self.weights is None:
            raise ValueError("must have weights with recipe.loss = gan: the GAN phase begins with a trained USRNet")
        return self
