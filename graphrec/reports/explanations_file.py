"""``explanations.json`` of a run: the explanations that its report shows, kept when the report is made anew."""

from __future__ import annotations

import json
from collections.abc import Sequence

from graphrec.errors import InputError
from graphrec.reports.explanation import Explanation
from graphrec.runs import Run
from graphrec.runs.manifest import json_bytes

FILE = "explanations.json"


def read_explanations(run: Run) -> list[Explanation]:
    """The explanations that a run keeps, the oldest first.

    Raises:
        InputError: the file is damaged.
    """
    if FILE not in run.files:
        return []
    return parsed((run.path / FILE).read_text(encoding="utf-8"), str(run.path / FILE))


def parsed(text: str, where: str) -> list[Explanation]:
    """The explanations of a file's text.

    Raises:
        InputError: it is not what :func:`written` gives.
    """
    try:
        values = json.loads(text)["explanations"]
        return [Explanation.from_dict(one) for one in values]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{where} is damaged: {error}.") from error


def written(explanations: Sequence[Explanation]) -> bytes:
    """The content of the file."""
    return json_bytes({"explanations": [one.to_dict() for one in explanations]})
