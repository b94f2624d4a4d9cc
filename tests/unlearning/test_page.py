"""forgetting.html: whole, self-contained, without anybody's id, and never claiming more than was shown."""

from __future__ import annotations

import re
from functools import cache
from html.parser import HTMLParser

import pytest

from graphrec.errors import InputError
from graphrec.reports.svg import step_histograms
from graphrec.unlearning import evaluate_unlearning
from graphrec.unlearning.evidence import Claim, Report
from graphrec.unlearning.page import forgetting_page
from tests.unlearning.evidence.scene import world

FACTS = {
    "digest": "9f86d081884c7d659a2feaa0c55ad015",
    "requested": "2026-11-02T10:00:00Z",
    "finished": "2026-11-02T10:00:31Z",
    "method": "gif",
    "exactness": "approximate",
    "options": {"damping": 0.01},
    "seeds": {"before": 0, "retrained": [0, 1, 2]},
    "counts": {"edges": 240},
    "unknown": {"users": 1},
    "scan": {"files": 12, "leaks": 0},
}
CLAIMS = {"model": ("L2", "attacks on its scores"), "lists": "L1", "run folder": ("L0", "scanned")}
VOID = {"meta", "br", "wbr", "line", "rect", "circle", "polyline", "polygon"}


class Reader(HTMLParser):
    """Tags that are opened and closed in order, what is linked to, and the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.headings: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs) -> None:
        self.links += [value for name, value in attrs if name in ("href", "src", "action")]
        if tag not in VOID or (tag in ("polyline", "rect", "circle", "polygon") and not self._closed()):
            self.open.append(tag)

    def _closed(self) -> bool:
        return self.get_starttag_text().endswith("/>")

    def handle_startendtag(self, tag: str, attrs) -> None:
        self.links += [value for name, value in attrs if name in ("href", "src", "action")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)
        if "style" not in self.open:
            self.text += data


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    return reader


@cache
def report(good: bool) -> Report:
    here = world()
    after = here.retrained[0] if good else here.before
    return evaluate_unlearning(
        here.before, after, here.retrained, here.data, here.request, ks=(10,), shadow=False, draws=100,
        injected=True, margin=0.5 if good else 0.05,
        seconds={"unlearn": 2.0, "retrain": 30.0, "prepare": 80.0, "unlearn_memory": 2**30},
    )  # fmt: skip


def test_the_page_is_whole_and_fetches_nothing() -> None:
    reader = read(forgetting_page(report(True), FACTS, CLAIMS))
    assert reader.links == []
    for heading in (
        "In short", "What was asked", "What was done", "What may be claimed", "The four rows",
        "Scores of what was forgotten", "Can an outsider tell?", "Those who stay", "Who pays for it",
        "How far from retraining", "Recovery from injected interactions", "Cost, and bounds", "What is not shown",
        "Record",
    ):  # fmt: skip
        assert heading in reader.headings, heading
    for row in ("before", "before + mask", "unlearned", "retrained"):
        assert row in reader.text
    assert FACTS["digest"] in reader.text
    assert "approximate: an estimate" in reader.text
    assert "15.00 ×" in reader.text
    assert "nan" not in reader.text.lower().replace("finance", "")


def test_no_id_is_on_it() -> None:
    page = forgetting_page(report(True), FACTS, CLAIMS)
    assert "person-" not in page
    assert "thing-" not in page


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"users": ["person-001"]}, "unknown fact of the page 'users'"),
        ({"counts": {"users": ["person-001"]}}, "found a list"),
        ({"options": [1]}, "found a list"),
        ({"seeds": ["person-001"]}, "found a list"),
        ({"exactness": "certain"}, "unknown exactness"),
    ],
)
def test_facts_that_could_carry_ids_are_refused(facts, message: str) -> None:
    with pytest.raises(InputError, match=message):
        forgetting_page(None, facts, {})


def test_what_was_not_shown_is_not_claimed() -> None:
    page = forgetting_page(report(False), FACTS, {"model": ("L4", "trained anew"), "lists": "L1"})
    assert "L4 was claimed and is not shown: an attack tells it from retraining" in page
    assert re.search(r"<dd>L1<small>not recommended", page)
    bare = forgetting_page(None, {"method": "gif"}, [Claim("model", "L2", "attacks")])
    assert "L2 was claimed and is not shown: no evidence was measured" in bare
    assert "Nothing was measured" in bare
    assert re.search(r"<dd>L1<small>not recommended", bare)
    assert "guaranteed" not in bare


def test_a_claim_that_was_shown_stands() -> None:
    page = forgetting_page(report(True), FACTS, CLAIMS)
    assert report(True).indistinguishable
    assert re.search(r"<dd>L2<small>empirically indistinguishable", page)


def test_rows_that_were_not_run_say_so() -> None:
    here = world()
    alone = evaluate_unlearning(here.before, None, [], here.data, here.request, ks=(10,), shadow=False, draws=20)
    reader = read(forgetting_page(alone, {}, {}))
    assert "unlearned: not run: no unlearned model was given" in reader.text
    assert "retrained: not run: no retrained model was given" in reader.text
    assert "Nothing was retrained" in reader.text


def test_names_are_escaped() -> None:
    page = forgetting_page(report(True), {"title": "<script>", "operator": "a & b", "run": "<img>"}, {"<b>": "L1"})
    assert "<script>" not in page
    assert "<img>" not in page
    read(page)


def test_outlines_of_histograms_are_shares_of_their_own_total() -> None:
    chart = step_histograms("scores", [0.0, 0.5, 1.0], {"one": [1, 3], "ten": [10, 30], "none": [0, 0]}, "x", "y")
    lines = re.findall(r'<polyline class="s\d line" points="([^"]*)"', chart)
    assert len(lines) == 2
    assert lines[0] == lines[1]
    assert len(lines[0].split()) == 2 + 2 * 2
    assert "none" not in chart
    assert step_histograms("scores", [0.0, 1.0], {}, "x", "y") == ""
