"""What is wrong with a request, in words: a status, and for each fault where it is and what it is."""

from __future__ import annotations

import json
from typing import Any

MOST_FAULTS = 20
LONGEST = 60


class Problem(Exception):
    """A request that cannot be answered.

    Parameters
    ----------
    status : int
        Of HTTP, 4xx or 503.
    *faults : dict
        What `fault` gives.
    retry_after : int, optional
        Seconds after which the same request may well be answered.
    """

    def __init__(
        self, status: int, *faults: dict[str, Any], retry_after: int | None = None
    ) -> None:
        super().__init__("; ".join(f"{f['field']}: {f['msg']}" for f in faults))
        self.status, self.faults, self.retry_after = status, list(faults), retry_after

    @property
    def headers(self) -> dict[str, str]:
        """What the answer has besides."""
        return {} if self.retry_after is None else {"retry-after": str(self.retry_after)}


def fault(field: str, message: str, row: int | None = None, column: str | None = None) -> Any:
    """One fault: where (``rows[3].petal_width``), what, and if there are such the row and the column."""
    found: dict[str, Any] = {"field": field, "msg": message}
    if row is not None:
        found["row"] = row
    if column is not None:
        found["column"] = column
    return found


def as_json(faults: list[dict[str, Any]]) -> bytes:
    """The body of the answer."""
    shown = faults[:MOST_FAULTS]
    if len(faults) > MOST_FAULTS:
        shown.append(fault("rows", f"and {len(faults) - MOST_FAULTS} more faults."))
    return json.dumps({"detail": shown}).encode()


def shown(value: Any) -> str:
    """A value that someone sent, as JSON has it, shortened."""
    kinds = {list: "a list", dict: "an object", type(None): "null"}
    if type(value) in kinds:
        return kinds[type(value)]
    if isinstance(value, bool):
        return "true" if value else "false"
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, str) else str(value)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
