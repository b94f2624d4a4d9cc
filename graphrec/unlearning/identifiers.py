"""Raw ids, names and texts of what is to be forgotten, and whether a text or a JSON value mentions one."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
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

    An id is looked for as a whole word. One that is a number, or a word too short or too common to tell, or that
    somebody of another kind has too, counts only where an id of its kind is said to follow: ``user 42``,
    ``user_id: 42``, ``"users": [42]``, a key below ``per_user``. Names and texts of at least four characters are
    looked for as phrases.

    Attributes:
        words: ids that tell by themselves.
        phrases: ids with other characters than letters and digits, names, texts.
        plain: numbers, common words and the like, by the kind of node; ``""``: of any kind.
        kinds: what nodes are called, in the singular.
    """

    words: frozenset[str] = frozenset()
    phrases: tuple[str, ...] = ()
    plain: Mapping[str, frozenset[str]] = field(default_factory=dict)
    kinds: tuple[str, ...] = ("user", "item")
    _patterns: dict[str, re.Pattern[str]] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def of(cls, data: RecDataset, resolved: Resolved) -> Identifiers:
        """Ids and names of the nodes that go wholly, texts that go, and ids that the dataset does not have."""
        ids: dict[str, list[Any]] = {"": _strange_ids(data, resolved)}
        phrases: list[str] = []
        shared: set[str] = set()
        for node_type, codes in resolved.nodes.items():
            ids[node_type] = data.vocabularies[node_type].decode(codes).tolist()
            phrases += _only_of(data.names.get(node_type), codes)
            for other, vocabulary in data.vocabularies.items():
                if other != node_type and ids[node_type]:
                    there = vocabulary.encode(ids[node_type], unknown="mark") >= 0
                    shared.update(str(raw) for raw, also in zip(ids[node_type], there, strict=True) if also)
        for node_type, codes in resolved.texts.items():
            phrases += _only_of(data.texts.get(node_type), codes)
        return cls.from_values(ids, phrases, data.vocabularies, shared)

    @classmethod
    def from_values(
        cls,
        ids: Mapping[str, Iterable[Any]] | Iterable[Any],
        phrases: Iterable[str] = (),
        kinds: Iterable[str] = ("user", "item"),
        shared: Collection[str] = (),
    ) -> Identifiers:
        """Identifiers from raw ids (whole numbers or strings), by the kind of node or of any kind.

        Args:
            ids: the ids.
            phrases: names and texts.
            kinds: what nodes are called.
            shared: ids that somebody of another kind has too.
        """
        words: set[str] = set()
        plain: dict[str, set[str]] = {}
        spelled = {phrase.strip() for phrase in phrases}
        for kind, values in ids.items() if isinstance(ids, Mapping) else [("", ids)]:
            for raw in values:
                text = str(raw)
                common = text.isdigit() or len(text) < 3 or text.casefold() in _OWN_WORDS or text in shared
                if common:
                    plain.setdefault(kind, set()).add(text)
                elif re.fullmatch(r"\w+", text):
                    words.add(text)
                else:
                    spelled.add(text)
        long_enough = tuple(sorted(phrase for phrase in spelled if len(phrase) >= _SHORTEST_PHRASE))
        frozen = {kind: frozenset(values) for kind, values in plain.items()}
        return cls(frozenset(words), long_enough, frozen, tuple(sorted({"user", "item", *kinds})))

    def __len__(self) -> int:
        return len(self.words) + len(self.phrases) + sum(map(len, self.plain.values()))

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
        kind, several = self._says_id(key)
        if isinstance(value, Mapping):
            for name, entry in value.items():
                text = str(name)
                if (kind is not None and self._is_plain(kind, text)) or self.mentions(text):
                    yield f"{place} (a key)".strip()
                    text = "…"
                yield from self._places(entry, f"{place}.{text}" if place else text, text)
        elif isinstance(value, (list, tuple)):
            for number, entry in enumerate(value):
                # Below "users" a list holds ids, below "user" a single value does.
                yield from self._places(entry, f"{place}[{number}]", key if kind is None else kind or "id")
        elif isinstance(value, str):
            if self.mentions(value) or (kind is not None and self._is_plain(kind, value)):
                yield place
        # "users": 12 is a count; "user": 12 is somebody.
        elif (
            isinstance(value, (int, np.integer))
            and kind is not None
            and not several
            and self._is_plain(kind, str(value))
        ):
            yield place

    def _is_plain(self, kind: str, text: str) -> bool:
        groups = self.plain.values() if kind == "" else (self.plain.get(kind, ()), self.plain.get("", ()))
        return any(text in group for group in groups)

    def _says_id(self, key: str) -> tuple[str | None, bool]:
        """The kind of node whose ids follow on a key (``""``: any; None: no ids do), and whether in the plural."""
        if "__" in key or re.match(r"(num|count|total|touched)_", key):
            return None, False  # an edge type, a count
        kinds = "|".join(map(re.escape, self.kinds))
        found = re.fullmatch(rf"(?:\w+_)?({kinds}|uid|iid|id)(s?)(?:_?id(s?))?", key, flags=re.IGNORECASE)
        if found is None:
            return None, False
        return _kind(found.group(1)), bool(found.group(2) or found.group(3)) or "per_" in key

    def _said(self, text: str) -> set[tuple[str, str]]:
        """Plain ids that stand where a text says that an id follows, with the kind that it says."""
        if "pattern" not in self._patterns:
            kinds = "|".join(map(re.escape, self.kinds))
            apart = r"(?:[\"']?[ \t]*[:=#/][ \t]*[\"']?|[\"']?[ \t]+[\"']?|[_-]|(?=\d))"
            several = r"[\"']?[ \t]*[:=]?[ \t]*[\[(]\s*((?:[\"']?\w+[\"']?[\s,]*)+)"
            self._patterns["pattern"] = re.compile(
                rf"(?:\b|_)(?:({kinds}|uid|iid)(?:_?id)?{apart}(\w+)|({kinds}|uid|iid|id)s?(?:_?ids?)?{several})",
                flags=re.IGNORECASE,
            )
        found: set[tuple[str, str]] = set()
        for match in self._patterns["pattern"].finditer(text):
            kind = _kind(match.group(1) or match.group(3))
            words = re.findall(r"\w+", match.group(2) or match.group(4) or "")
            found.update((kind, word) for word in words if self._is_plain(kind, word))
        return found


def _kind(word: str) -> str:
    return {"uid": "user", "iid": "item", "id": ""}.get(word.casefold(), word.casefold())


def _strange_ids(data: RecDataset, resolved: Resolved) -> list[Any]:
    """Ids that the request named and the dataset does not have: whoever asked is a person all the same."""
    strange = []
    for kind, missing in resolved.unknown.items():
        # Relations and numbers of edges are nobody's ids.
        if kind in ("relations", "edges"):
            continue
        for entry in missing:
            for part in entry if isinstance(entry, (tuple, list)) else (entry,):
                if not any(part in vocabulary for vocabulary in data.vocabularies.values()):
                    strange.append(part)
    return strange


def _only_of(strings: Any, codes: Any) -> list[str]:
    """Strings of some nodes that no other node has too."""
    if strings is None:
        return []
    gone = np.zeros(len(strings), bool)
    gone[codes] = True
    others = {value for value in strings[~gone] if value is not None}
    return [value for value in strings[gone] if value is not None and value not in others]
