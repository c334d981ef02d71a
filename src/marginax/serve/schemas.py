"""The bodies of requests and answers, as pydantic checks them and ``/openapi.json`` shows them.

What a row may be depends on the model that is served: the schema of its requests has the names of its columns,
their kinds and their categories. Cells are checked apart, by `Table`, which knows more and says it better.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from marginax.serve.columns import CATEGORY, COUNT, Column
from marginax.serve.problems import Problem, fault, shown

LARGEST_SEED = 2**32 - 1

WORDS = {
    "missing": "it is missing.",
    "extra_forbidden": "there is no such key.",
    "model_type": "the body must be an object.",
    "list_type": "it must be a list.",
    "int_type": "it must be a whole number.",
}


class Fault(BaseModel):
    """One thing that is wrong with a request."""

    field: str = Field(description="Where, for example rows[3].petal_width.")
    msg: str = Field(description="What, in words.")
    row: int | None = Field(None, description="The row, from 0, if it is about a row.")
    column: str | None = Field(None, description="The column, if it is about a cell.")


class Faults(BaseModel):
    """Why a request was not answered."""

    detail: list[Fault]


class Predicted(BaseModel):
    """Where rows belong."""

    component: list[int] = Field(description="The most probable component of each row, from 0.")
    probability: list[float] = Field(description="How probable it is.")


class Probabilities(BaseModel):
    """How probable each component is."""

    probabilities: list[list[float]] = Field(description="For each row, of each component.")
    std: list[list[float]] | None = Field(
        description="Their standard deviations over the posterior; null for a point estimate."
    )
    log_density: list[float] = Field(
        description="Of each row, in nats; missing cells are summed out. Of a series, given the rows before."
    )


class Sampled(BaseModel):
    """New rows."""

    rows: list[list[Any]] = Field(description="Cells in the order of the columns.")
    component: list[int] = Field(description="The component that each row was drawn from.")
    seed: int = Field(description="With it the same rows are drawn again.")


class Health(BaseModel):
    """That the service is there."""

    status: str
    model: str
    version: str
    estimator: str
    components: int
    columns: list[str]
    requests: int = Field(description="Requests answered since the start.")


def rows_model(columns: Sequence[Column], most: int) -> type[BaseModel]:
    """The body of a request about rows.

    Parameters
    ----------
    columns : sequence of Column
        Of the model.
    most : int
        How many rows are taken.
    """
    cells = [_cell(column) for column in columns]
    count = len(cells)
    as_list = {"type": "array", "prefixItems": cells, "items": False}
    by_name = {
        "type": "object",
        "properties": {column.name: cell for column, cell in zip(columns, cells, strict=True)},
        "additionalProperties": False,
    }
    item: Any = {"anyOf": [as_list | {"minItems": count, "maxItems": count}, by_name]}
    about = (
        "Cells in the order of the columns, or by name. null or left out: missing, and summed out. A text such as "
        "'NA' or '' is not missing, but wrong, unless it is a category."
    )

    class RowsBody(BaseModel):
        """Rows to be asked about."""

        model_config = ConfigDict(extra="forbid", strict=True)
        rows: Annotated[
            list[Any],
            Field(
                min_length=1, max_length=most, description=about, json_schema_extra={"items": item}
            ),
        ]

    return RowsBody


def sample_model(most: int) -> type[BaseModel]:
    """The body of a request for new rows."""

    class SampleBody(BaseModel):
        """How many rows to draw, and perhaps with what seed."""

        model_config = ConfigDict(
            extra="forbid", strict=True, json_schema_extra={"examples": [{"count": 5, "seed": 0}]}
        )
        count: Annotated[
            int,
            Field(ge=1, le=most, description="How many rows; of a series, how many steps of one."),
        ]
        seed: Annotated[
            int | None,
            Field(
                ge=0,
                le=LARGEST_SEED,
                description="With the same seed the same rows are drawn. null or left out: one by chance, which the "
                "answer has.",
            ),
        ] = None

    return SampleBody


def read(model: type[BaseModel], body: bytes) -> Any:
    """A body, checked.

    Raises
    ------
    Problem
        400 when it is not JSON, 422 when it says something else than it should.
    """
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=True, include_input=True)
        if faults[0]["type"] == "json_invalid":
            message = f"it is not JSON: {faults[0]['msg'].removeprefix('Invalid JSON: ')}."
            raise Problem(400, fault("body", message)) from None
        raise Problem(422, *map(in_words, faults)) from None


def in_words(error: Any) -> dict[str, Any]:
    """What pydantic found, as a fault."""
    field = ".".join(str(part) for part in error["loc"]) or "body"
    kind, context = error["type"], error.get("ctx", {})
    if kind == "too_short":
        message = "there are no rows."
    elif kind == "too_long":
        message = f"there are {context['actual_length']:,} rows, and {context['max_length']:,} at most are taken; "
        message += "send them in parts."
    elif kind in WORDS:
        message = WORDS[kind]
    else:
        message = (
            error["msg"][:1].lower() + error["msg"][1:] + f", and this is {shown(error['input'])}."
        )
    return fault(field, message)


def _cell(column: Column) -> dict[str, Any]:
    if column.kind == CATEGORY:
        assert column.categories is not None
        return {"enum": [*column.categories, None]}
    kind = "integer" if column.kind == COUNT else "number"
    return {"type": [kind, "null"], "description": column.wants}
