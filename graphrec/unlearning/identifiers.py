"""Raw ids, names and texts of what is to be forgotten, and whether a text or a JSON value mentions one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from graphrec.datasets.dataset import RecDataset
    from graphrec.unlearning.resolve import Resolved

# Ids that are also words of a run's own files: they count where the text says that an id follows.
_OWN_WORDS = frozenset(
    re.findall(
        r"\w+",
        "user item entity tag edge train valid test data dataset model seed epoch loss recall ndcg mask name none null "
        "true false all rank score time label world exact complete",
    )
)
_SHORTEST_PHRASE = 4


@dataclass(frozen=True)
class Identifiers:
    """What must not be mentioned.

    An id is looked for as a whole word. One that is a number, or a word too short or too common to tell, counts only
    where an id is said to follow: ``user 42``, ``user_id: 42``, ``"users": [42]``, a key below ``per_user``. Names and
    texts of at least four characters are looked for as phrases.

    Attributes:
        words: ids that tell by themselves.
        phrases: ids with other characters than letters and digits, names, texts.
        plain: numbers and common words, as strings.
        kinds: what nodes are called, in the singular.
    """

    words: frozenset[str] = frozenset()
    phrases: tuple[str, ...] = ()
    plain: frozenset[str] = frozenset()
    kinds: tuple[str, ...] = ("user", "item")
    _patterns: dict[str, re.Pattern[str]] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def of(cls, data: RecDataset, resolved: Resolved) -> Identifiers:
        """Ids and names of the nodes that go wholly, texts that go, and what the request named in vain."""
        ids: list[Any] = []
        phrases: list[str] = []
        for node_type, codes in resolved.nodes.items():
            ids += data.vocabularies[node_type].decode(codes).tolist()
            phrases += _only_of(data.names.get(node_type), codes)
        for node_type, codes in resolved.texts.items():
            phrases += _only_of(data.texts.get(node_type), codes)
        for kind, missing in resolved.unknown.items():
            # Relations and edge numbers are nobody's ids.
            if kind not in ("relations", "edges"):
                ids += [part for entry in missing for part in (entry if isinstance(entry, (tuple, list)) else (entry,))]
        return cls.from_values(ids, phrases, data.vocabularies)

    @classmethod
    def from_values(
        cls, ids: Iterable[Any], phrases: Iterable[str] = (), kinds: Iterable[str] = ("user", "item")
    ) -> Identifiers:
        """Identifiers from raw ids (whole numbers or strings) and phrases (names, texts)."""
        words, plain = set(), set()
        spelled = {phrase.strip() for phrase in phrases}
        for raw in ids:
            text = str(raw)
            if text.isdigit() or len(text) < 3 or text.casefold() in _OWN_WORDS:
                plain.add(text)
            elif re.fullmatch(r"\w+", text):
                words.add(text)
            else:
                spelled.add(text)
        long_enough = tuple(sorted(phrase for phrase in spelled if len(phrase) >= _SHORTEST_PHRASE))
        return cls(frozenset(words), long_enough, frozenset(plain), tuple(sorted({"user", "item", *kinds})))

    def __len__(self) -> int:
        return len(self.words) + len(self.phrases) + len(self.plain)

    def mentions(self, text: str) -> int:
        """How many different identifiers a text mentions."""
        found = len(self.words.intersection(re.findall(r"\w+", text))) if self.words else 0
        found += sum(phrase in text for phrase in self.phrases)
        return found + len(self._said(text)) if self.plain else found

    def mentioned_in(self, value: Any, inside: str = "") -> list[str]:
        """Where a JSON value mentions an identifier, as dotted places; the places name no identifier.

        Args:
            value: mappings, lists, strings, numbers.
            inside: the key that the value stands under.
        """
        return [place or "the value" for place in self._places(value, "", inside)]

    def _places(self, value: Any, place: str, key: str) -> Iterator[str]:
        said, several = self._says_id(key)
        if isinstance(value, Mapping):
            for name, entry in value.items():
                text = str(name)
                if (said and text in self.plain) or self.mentions(text):
                    yield f"{place} (a key)".strip()
                    text = "…"
                yield from self._places(entry, f"{place}.{text}" if place else text, text)
        elif isinstance(value, (list, tuple)):
            for number, entry in enumerate(value):
                # Below "users" a list holds ids, below "user" a single value does.
                yield from self._places(entry, f"{place}[{number}]", self.kinds[0] if said else key)
        elif isinstance(value, str):
            if self.mentions(value) or (said and value in self.plain):
                yield place
        # "users": 12 is a count; "user": 12 is somebody.
        elif isinstance(value, (int, np.integer)) and said and not several and str(value) in self.plain:
            yield place

    def _says_id(self, key: str) -> tuple[bool, bool]:
        """Whether a key says that ids follow, and whether in the plural."""
        if "__" in key or re.match(r"(num|count|total|touched)_", key):
            return False, False  # an edge type, a count
        kinds = "|".join(map(re.escape, self.kinds))
        found = re.fullmatch(rf"(?:\w+_)?({kinds}|uid|iid|id)(s?)(?:_?id(s?))?", key, flags=re.IGNORECASE)
        if found is None:
            return False, False
        return True, bool(found.group(2) or found.group(3)) or "per_" in key

    def _said(self, text: str) -> set[str]:
        """Plain ids that stand where a text says that an id follows."""
        if "pattern" not in self._patterns:
            kinds = "|".join(map(re.escape, self.kinds))
            said = rf"(?:{kinds}|uid|iid)(?:_?id)?"
            apart = r"(?:[\"']?[ \t]*[:=#/][ \t]*[\"']?|[\"']?[ \t]+[\"']?|[_-]|(?=\d))"
            several = r"[\"']?[ \t]*[:=]?[ \t]*[\[(]\s*((?:[\"']?\w+[\"']?[\s,]*)+)"
            self._patterns["pattern"] = re.compile(
                rf"(?:\b|_)(?:{said}{apart}(\w+)|(?:{kinds}|uid|iid|id)s?(?:_?ids?)?{several})", flags=re.IGNORECASE
            )
        found: set[str] = set()
        for match in self._patterns["pattern"].finditer(text):
            found.update(re.findall(r"\w+", match.group(1) or match.group(2) or ""))
        return found & self.plain


def _only_of(strings: Any, codes: Any) -> list[str]:
    """Strings of some nodes that no other node has too."""
    if strings is None:
        return []
    gone = np.zeros(len(strings), bool)
    gone[codes] = True
    others = {value for value in strings[~gone] if value is not None}
    return [value for value in strings[gone] if value is not None and value not in others]
