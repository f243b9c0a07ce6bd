"""What the server's requests and answers look like; FastAPI checks requests with it and describes both.

Bounds that the command line sets are not here but in `limits.py`; `description.py` adds them to the description.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr, StringConstraints, model_validator

RawId = Annotated[StrictStr, StringConstraints(max_length=500)] | StrictInt
"""A raw id: text, or an integer that stands for its digits."""

RawIds = Annotated[list[RawId], Field(fail_fast=True)]
"""Raw ids, of which the first wrong one is reported: to collect the errors of a whole body would take seconds."""

RawIdLists = Annotated[list[RawIds], Field(fail_fast=True)]
"""Lists of raw ids; here, too, the first wrong one is reported."""


class Asked(BaseModel):
    """A request: no value is converted, and a misspelt name is refused."""

    model_config = ConfigDict(strict=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def with_one_unknown_name(cls, given: Any) -> Any:
        """Leaves one of the unknown names, which is then refused, for the same reason."""
        if not isinstance(given, dict):
            return given
        unknown = [name for name in given if name not in cls.model_fields][:1]
        return {name: given[name] for name in (*cls.model_fields, *unknown) if name in given}


class RecommendRequest(Asked):
    """Histories, and which items are wanted."""

    histories: RawIdLists = Field(description="raw ids of each user, oldest first", examples=[[["7", "12"]]])
    k: int = Field(default=10, ge=1, description="length of the lists, at most the number of items")
    filter_seen: bool = Field(default=True, description="leave out the items of the history")
    only: RawIds | None = Field(default=None, description="raw ids that alone may be recommended")
    without: RawIds | None = Field(default=None, description="raw ids that must not be recommended")
    unknown_items: Literal["drop", "refuse"] = Field(default="drop", description="ids that the catalogue lacks")
    cold: Literal["popular", "refuse", "skip"] = Field(default="popular", description="users without a known item")
    model: str | None = Field(default=None, description="which model answers; null: the first one")


class SimilarRequest(Asked):
    """Items whose neighbours are wanted."""

    items: RawIds = Field(description="raw ids", examples=[["7"]])
    k: int = Field(default=10, ge=1, description="length of the lists, at most the number of items")
    only: RawIds | None = Field(default=None, description="raw ids that alone may be listed")
    without: RawIds | None = Field(default=None, description="raw ids that must not be listed")
    model: str | None = Field(default=None, description="which model answers; null: the first one")


class ReloadRequest(Asked):
    """Which model is replaced, and by what."""

    model: str | None = Field(default=None, description="which model; null: the first one")
    folder: str | None = Field(default=None, description="name of a folder beside the served one; null: the same path")


class RecommendedItem(BaseModel):
    """An item of a list."""

    item: str
    title: str | None
    score: float | None = Field(description="null for items that were not scored, which cold users get")
    rank: int


class RecommendedList(BaseModel):
    """The items that are recommended for one history."""

    items: list[RecommendedItem]
    unknown: int = Field(description="ids of the history that the catalogue lacks")
    cold: bool = Field(description="whether the catalogue knows none of the history's ids")


class RecommendAnswer(BaseModel):
    """A list per history, in their order."""

    model: str
    lists: list[RecommendedList]


class SimilarItem(BaseModel):
    """A neighbour."""

    item: str
    title: str | None
    cosine: float
    rank: int


class SimilarList(BaseModel):
    """The neighbours of an item, nearest first."""

    item: str
    items: list[SimilarItem]


class SimilarAnswer(BaseModel):
    """A list per item, in their order."""

    model: str
    lists: list[SimilarList]


class FoundItem(BaseModel):
    """An item that a search found."""

    item: str
    title: str | None
    count: int = Field(description="how often the item occurs in the data")


class ItemsAnswer(BaseModel):
    """Items whose title or raw id contains each word of the search, the most frequent first."""

    items: list[FoundItem]


class ModelFacts(BaseModel):
    """A served model."""

    name: str
    method: str | None
    model: str | None
    data: str | None
    seed: int | None
    metrics: dict[str, Any]
    items: int
    max_len: int = Field(description="items of a history that the model reads: the last ones")
    engine: str


class ServedLimits(BaseModel):
    """What a request may ask for."""

    k: int
    history: int
    histories: int


class ModelsAnswer(BaseModel):
    """The served models."""

    models: list[ModelFacts]
    default: str
    limits: ServedLimits


class HealthAnswer(BaseModel):
    """The server answers requests."""

    status: Literal["ok"]
    models: list[str]


class ReloadAnswer(BaseModel):
    """The model that is served now."""

    model: str
    folder: str


class ErrorAnswer(BaseModel):
    """Why there is no other answer."""

    error: str = Field(description="one line")
