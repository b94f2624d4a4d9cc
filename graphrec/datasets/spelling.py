"""Spellings of one name brought together: case, white space, Unicode forms and punctuation do not count."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

# Marks that tell names apart ("C#" from "C", "AT&T" from "AT T") stay; all other punctuation counts as a space.
_TELLING = frozenset("#&%@*")
# Written or left out at will within a word: Children's, Childrens.
_SILENT = frozenset("'’‘`´ʼ")
_SPACE = re.compile(r"\s+")
_NUMBER = re.compile(r"[+-]?[0-9]+([.,][0-9]+)*%?")


def spelling_key(text: str) -> str:
    """What two spellings of a name have in common: NFKC, casefolded, punctuation as spaces, spaces collapsed.

    Apostrophes go without a space (``Children's`` is ``Childrens``); ``#``, ``&``, ``%``, ``@`` and ``*`` stay. Numbers
    keep their sign and point, and a text of nothing but punctuation is its own key.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    folded = _SPACE.sub(" ", folded).strip()
    if _NUMBER.fullmatch(folded):
        return folded
    plain = "".join(
        "" if mark in _SILENT else " " if mark not in _TELLING and unicodedata.category(mark)[0] == "P" else mark
        for mark in folded
    )
    return _SPACE.sub(" ", plain).strip() or folded


def usual_spelling(counts: Mapping[str, int]) -> str:
    """The most frequent of some spellings, white space collapsed; of equally frequent ones the first by code points."""
    shown: dict[str, int] = {}
    for text, count in counts.items():
        plain = _SPACE.sub(" ", text).strip()
        shown[plain] = shown.get(plain, 0) + count
    return min(shown, key=lambda text: (-shown[text], text))
