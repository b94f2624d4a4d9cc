"""HTML pages: their words, and examples and explanations of a report against the pairs that remain."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

import numpy as np

from graphrec.datasets.tables import PARTS
from graphrec.models.base import GraphInputs
from graphrec.unlearning.readers.explanations import untrained
from graphrec.unlearning.readers.findings import Notes, some
from graphrec.unlearning.readers.sought import Subject


@dataclass
class Shown:
    """A user's card on a report.

    Attributes:
        user: the label.
        history: labels of training items.
        more: training items that are not shown.
        hits: labels of recommended items that are in the test part.
    """

    user: str = ""
    history: list[str] = field(default_factory=list)
    more: int = 0
    hits: list[str] = field(default_factory=list)


class _Page(HTMLParser):
    """Words of a page (attributes and comments too), the cards of its examples, the interactions of explanations."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.words: list[str] = []
        self.cards: list[Shown] = []
        self.interactions: set[tuple[str, str]] = set()
        self._inside: list[str] = []
        self._list = ""
        self._entry: list[str] = []
        self._hit = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.words += [value for _, value in attrs if value]
        given = dict(attrs)
        if "data-user" in given and "data-item" in given:
            self.words += [f"{end} {given[f'data-{end}']}" for end in ("user", "item")]
            self.interactions.add((given["data-user"] or "", given["data-item"] or ""))
        if tag == "article":
            self.cards.append(Shown())
        if tag == "li":
            self._entry, self._hit = [], False
        if tag == "span" and ("class", "hit") in attrs:
            self._hit = True
        self._inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self._inside:
            while self._inside.pop() != tag:
                pass
        if tag == "li" and self.cards and "article" in self._inside and self._entry:
            label = self._entry[0].strip()
            if self._list.startswith("History"):
                self.cards[-1].history.append(label)
            elif self._hit:
                self.cards[-1].hits.append(label)

    def handle_data(self, data: str) -> None:
        self.words.append(data)
        if "article" not in self._inside:
            return
        if "h3" in self._inside:
            self.cards[-1].user += data
        elif "h4" in self._inside:
            self._list = data
        elif "li" in self._inside:
            self._entry.append(data)
        elif data.startswith("and ") and data.endswith(" more"):
            self.cards[-1].more = int(data.split()[1].replace(",", ""))

    def handle_comment(self, data: str) -> None:
        self.words.append(data)


def read_page(subject: Subject, text: str, where: str, inputs: GraphInputs | None, notes: Notes) -> None:
    """Words and ids on a page; the cards of its examples against the training graph and the test part."""
    page = _Page()
    page.feed(text)
    page.close()
    if subject.sought is not None and subject.sought.identifiers.mentions("\n".join(page.words)):
        notes.find("raw id", where, "who is gone is mentioned on the page")
    if page.cards and inputs is not None:
        _read_cards(subject, page.cards, where, inputs, notes)
    if page.interactions and inputs is not None:
        strange = untrained(subject, inputs, {(inputs.target, user, item) for user, item in page.interactions})
        if strange:
            notes.find("row", where, f"explanations name {some(strange, 'interaction')} of no training edge")
    notes.check(where, "words, ids and examples", subject.sought is not None)


def _labels(subject: Subject, node_type: str) -> dict[str, list[int]]:
    """The rows of the run that a label on a page may mean."""
    ids, names = subject.run.vocabularies[node_type].raw, subject.run.names.get(node_type)
    out: dict[str, list[int]] = {}
    for code, raw in enumerate(ids):
        name = None if names is None else names[code]
        plain = f"{node_type} {raw}"
        label = f"{name} ({plain})" if node_type == "user" and name else str(name) if name else plain
        out.setdefault(label, []).append(code)
    return out


def _read_cards(subject: Subject, cards: list[Shown], where: str, inputs: GraphInputs, notes: Notes) -> None:
    user_type, _, item_type = inputs.target
    users, items = _labels(subject, user_type), _labels(subject, item_type)
    edges = inputs.graph[inputs.target].edge_index.numpy()
    trained = np.unique(edges[0] * inputs.num_items + edges[1])
    degrees = np.bincount(edges[0], minlength=inputs.num_users)
    tested = _tested(subject, user_type, item_type, inputs.num_items)

    def connected(user: str, item: str, keys: np.ndarray) -> bool:
        both = [u * inputs.num_items + i for u in users.get(user, ()) for i in items.get(item, ())]
        return bool(np.isin(both, keys).any())

    for card in cards:
        if card.user not in users:
            notes.find("raw id", where, "an example of a user whom the run does not have")
            continue
        strange = sum(not connected(card.user, label, trained) for label in card.history)
        if strange:
            notes.find("row", where, f"the history of an example has {some(strange, 'item')} of no training edge")
        if tested is not None:
            strange = sum(not connected(card.user, label, tested) for label in card.hits)
            if strange:
                notes.find("row", where, f"an example has {some(strange, 'hit')} that the test part does not have")
        if len(card.history) + card.more not in [int(degrees[code]) for code in users[card.user]]:
            notes.find("degree", where, "the history of an example has another length than in the training graph")


def _tested(subject: Subject, user_type: str, item_type: str, width: int) -> np.ndarray | None:
    """Keys of the test pairs that remain, in the run's own numbers; None without the request."""
    if subject.sought is None:
        return None
    table = subject.sought.kept.tables[subject.sought.kept.target]
    if table.part is not None:
        table = table.select((table.part == PARTS["test"]) & table.positive)
    numbers = []
    for node_type, column in ((user_type, table.source), (item_type, table.target)):
        back = np.full(subject.sought.data.num_nodes[node_type], -1, np.int64)
        codes = subject.codes[node_type]
        back[codes[codes >= 0]] = np.flatnonzero(codes >= 0)
        numbers.append(back[column])
    inside = (numbers[0] >= 0) & (numbers[1] >= 0)
    return np.unique((numbers[0] * width + numbers[1])[inside])
