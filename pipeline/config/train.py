"""The settings of jobs/train_usrnet.py, as conf/train_usrnet.yaml lists them."""

from typing import Annotated, Literal

from pydantic import Field

from pipeline.config.section import Count, Positive, Section, Text, Uri


class RecipeSection(Section):
    """What is learned, and how fast."""

    steps: Count = 4500
    """parameter updates; the learning rate falls along a cosine up to the last"""
    batch: Count = 8
    """crops of one step"""
    patch: Annotated[int, Field(ge=12, multiple_of=12)] = 96
    """HR pixels of a crop's side, a multiple of 12"""
    learning_rate: Positive = 5e-4
    """at its highest, after the warm-up"""
    warmup: Annotated[int, Field(ge=0)] = 100
    """steps of linear warm-up"""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.998
    """share of the moving average of the weights that a step keeps, 0 to below 1"""
    clip: Positive = 1.0
    """largest norm of the gradient"""
    precision: Literal["fp32", "bf16"] = "fp32"
    """number format of the prior's convolutions"""
    seed: Annotated[int, Field(ge=0)] = 0
    """of everything random"""


class TrainConfig(Section):
    """Settings of jobs/train_usrnet.py."""

    photographs: Uri
    """URI of a folder of clean HR photographs, searched recursively"""
    output: Text
    """local folder for the training's state and the weights"""
    weights: Text | None = None
    """checkpoint file to start from; null starts the tiny network from scratch"""
    validation: Annotated[int, Field(ge=0)] = 12
    """photographs held out"""
    every: Count = 100
    """steps between two progress lines, validations and checkpoints"""
    threads: Count | None = None
    """CPU threads; null leaves it to torch"""
    recipe: RecipeSection = RecipeSection()
