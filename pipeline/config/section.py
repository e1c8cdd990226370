"""What every configuration is made of: a strict, frozen group of keys, and the types of its values."""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator, model_validator

from pipeline.credentials import MEND as CREDENTIAL_MEND
from pipeline.credentials import holds_secret
from pipeline.errors import ItemError
from pipeline.keys import checked_template
from pipeline.records import SIGMA_AUTO, checked_sigma
from pipeline.resolve import checked_kernel


def _without_secret(uri: str) -> str:
    if holds_secret(uri):
        raise ValueError(f"must not hold a credential; {CREDENTIAL_MEND}")
    return uri


def _kernel_spec(spec: str) -> str:
    try:
        return checked_kernel(spec)
    except ItemError as error:
        raise ValueError(f"must be a kernel specification; {error}") from None


def _sigma(given: object) -> object:
    if given is None or given == SIGMA_AUTO:
        return given
    try:
        return checked_sigma(given)
    except ItemError:
        raise ValueError(f"must be a finite number from 0 to 255, or {SIGMA_AUTO}") from None


def _whole_above_one(gpus: float) -> float:
    if gpus > 1 and gpus != int(gpus):
        raise ValueError("must be a share from 0 to 1 or a whole number: a replica cannot use 1.5 GPUs")
    return gpus


Text = Annotated[str, Field(min_length=1)]
Uri = Annotated[Text, AfterValidator(_without_secret)]
Kernel = Annotated[Uri, AfterValidator(_kernel_spec)]
Sigma = Annotated[Any, PlainValidator(_sigma)]
Template = Annotated[Text, AfterValidator(checked_template)]
Gpus = Annotated[float, Field(ge=0), AfterValidator(_whole_above_one)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1, le=2**53)]


REQUIRED = "???"  # in a YAML file: a person must replace it


class Section(BaseModel):
    """A group of keys: unknown keys are errors, an int may stand for a float, nothing else converts."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    @model_validator(mode="before")
    @classmethod
    def _as_written(cls, given: object) -> object:
        """`defaults:` with nothing below it is an empty section; a key that says ??? is still missing."""
        if not isinstance(given, dict):
            return {} if given is None else given
        return {key: value for key, value in given.items() if value != REQUIRED}
