"""The parser that all commands share: jsonargparse, with errors that name the nearest known option."""

from __future__ import annotations

import argparse
import difflib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import yaml
from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace, set_parsing_settings

from graphrec.errors import InputError, MissingFileError, unknown

_EXPECTED = re.compile(r'Parser key "(?P<key>[^"]+)":\s*(?P<rest>.*)', re.DOTALL)
_UNION = re.compile(r"Does not validate .*Subtypes: \[(?P<types>.*)\] Errors: .* Given value: (?P<value>.*)")
_TYPE = re.compile(r"<class '(?:\w+\.)*(\w+)'>|typing\.")
_LITERAL = re.compile(r"Literal\[([^\]]*)\]")
_MEMBER = re.compile(r"[\w.]*\[[^\]]*\]|[^,\s][^,]*")
_OPTIONAL = re.compile(r"Optional\[((?:[^\[\]]|\[[^\]]*\])*)\]")
_SEVERAL = re.compile(r"(?:tuple|list|Sequence|Iterable)\[(\w+)(?:, \.\.\.)?\]")
_CHOICES = re.compile(r"\((one of [^()]*), default:")
_TUPLE = re.compile(r"default: \(([^()]*?),?\)")
_ROLE = re.compile(r":\w+:`~?([^`]+)`|``([^`]*)``")


# What a field of a dataclass means stands below it.
set_parsing_settings(docstring_parse_attribute_docstrings=True)


class HelpFormatter(DefaultHelpFormatter):
    """Types and defaults as a person would type them: ``none`` for no value, choices by their words."""

    def _expand_help(self, action: argparse.Action) -> str:
        text = _OPTIONAL.sub(r"\1", super()._expand_help(action)).replace(" | null", "")
        text = _CHOICES.sub(r"(\1; default:", _LITERAL.sub(_one_of, text).replace("type: one of", "one of"))
        text = _TUPLE.sub(r"default: \1", _SEVERAL.sub(r"one or more \1", text))
        return text.replace("default: null", "default: none")


class Parser(ArgumentParser):
    """A command's parser.

    Args:
        command: the command's name.
        usage: what follows the name in the usage line.
        description: what the command does.
        lists: options that take one or more words.
    """

    def __init__(self, command: str, usage: str, description: str, lists: Sequence[str] = ()) -> None:
        super().__init__(
            prog=f"graphrec {command}",
            usage=f"graphrec {command} {usage}",
            description=description,
            exit_on_error=False,
            formatter_class=HelpFormatter,
        )
        self.lists = set(lists)

    def options(self) -> list[str]:
        """Every long option, as it is written in the help."""
        hidden = {"--print_shtab", "--print_config"}
        return [
            name
            for name in self._option_string_actions
            if name.startswith("--") and name[-1] != "+" and name not in hidden
        ]

    def polish(self) -> Parser:
        """Write options with hyphens, and their help without mark-up; to be called when all are added."""
        for action in self._actions:
            spelt = [name if "." in name else name.replace("_", "-") for name in action.option_strings]
            for old, new in zip(action.option_strings, spelt, strict=True):
                self._option_string_actions[new] = self._option_string_actions.pop(old)
            action.option_strings = spelt
            if action.nargs == "+":
                action.metavar = "ID"
            if self.lists & set(action.option_strings):
                action.option_strings = [name for name in action.option_strings if not name.endswith("+")]
                action.metavar = "VALUE …"
            if action.help and action.help is not argparse.SUPPRESS:
                action.help = _ROLE.sub(lambda found: found[1] or found[2], action.help)
        for group in self._action_groups:
            group.title = _ROLE.sub(lambda found: found[1] or found[2], group.title or "")
        return self

    def describe(self, option: str, value: str, text: str) -> None:
        """Say what an option takes and means, where jsonargparse made it."""
        action = self._option_string_actions[option]
        action.metavar, action.help = value, text

    def parse(self, arguments: Sequence[str]) -> Namespace:
        """Parse; ``--some-option`` and ``--some_option`` are the same, and ``none`` is no value.

        Raises:
            InputError: an unknown option (the nearest known one is named), or a value of the wrong type.
        """
        words = self._joined(self._without_value([self._spelt(word) for word in arguments]))
        try:
            return self.parse_args(words)
        except argparse.ArgumentError as error:
            raise InputError(f"{_readable(str(error))} (see {self.prog} --help)") from error

    def _spelt(self, word: str) -> str:
        if not word.startswith("--") or word == "--":
            return word
        name, equals, value = word.partition("=")
        for spelling in (name, name.replace("_", "-"), name.replace("-", "_")):
            if spelling in self._option_string_actions:
                return spelling + equals + value
        known = self.options()
        near = difflib.get_close_matches(name, known, n=5, cutoff=0.5)
        raise unknown(f"option of {self.prog}", name, near or known)

    def _without_value(self, words: list[str]) -> list[str]:
        """``none``, as the help writes it, as the parser below knows it, for options that can go without a value."""
        made = list(words)
        for place, word in enumerate(words):
            name, equals, value = word.partition("=")
            if not _can_be_none(self._option_string_actions.get(name)):
                continue
            if equals and value.lower() == "none":
                made[place] = f"{name}=null"
            elif not equals and place + 1 < len(words) and words[place + 1].lower() == "none":
                made[place + 1] = "null"
        return made

    def _joined(self, words: list[str]) -> list[str]:
        """Each option of several words as one word with a JSON list: ``--ks 10 20`` as ``--ks=["10", "20"]``."""
        joined: list[str] = []
        rest = list(words)
        while rest:
            name, equals, value = rest.pop(0).partition("=")
            if name not in self.lists:
                joined.append(name + equals + value)
                continue
            values = [value] if equals else []
            while rest and not rest[0].startswith("--"):
                values.append(rest.pop(0))
            if not values:
                raise InputError(f"{name}: at least one value is expected after it")
            one_list = len(values) == 1 and values[0].startswith("[") and values[0].endswith("]")
            joined.append(f"{name}={values[0] if one_list else json.dumps(values, ensure_ascii=False)}")
        return joined


def _readable(message: str) -> str:
    found = _EXPECTED.search(message)
    if found is None:
        return message.removeprefix("error: ")
    option = "--" + (found["key"] if "." in found["key"] else found["key"].replace("_", "-"))
    rest = " ".join(found["rest"].split())
    union = _UNION.search(rest)
    if union is not None:
        types = [_LITERAL.sub(_one_of, name) for name in _MEMBER.findall(union["types"]) if "NoneType" not in name]
        types += ["none"] if "NoneType" in union["types"] else []
        rest = f"expected {' or '.join(types)}, got {union['value']}"
    rest = _LITERAL.sub(_one_of, _TYPE.sub(lambda kind: kind[1] or "", rest)).replace("Expected a ", "expected ")
    return f"{option}: {rest}".replace(". Got value:", ", got")


def _one_of(literal: re.Match[str]) -> str:
    """``Literal['a', 'b']`` in words."""
    return "one of " + ", ".join(word.strip().strip("'\"") for word in literal[1].split(","))


def _can_be_none(action: argparse.Action | None) -> bool:
    """Whether an option takes None, and no word ``none`` of its own."""
    members = get_args(getattr(action, "_typehint", None))
    words = [word for member in members if get_origin(member) is Literal for word in get_args(member)]
    return NoneType in members and "none" not in words


def take(arguments: Sequence[str], name: str) -> tuple[str | None, list[str]]:
    """The value of ``--name VALUE`` or ``--name=VALUE`` (the last one given), and the words without it.

    Raises:
        InputError: nothing follows the option.
    """
    value, rest, words = None, [], iter(arguments)
    for word in words:
        if word == name:
            value = next(words, None)
            if value is None:
                raise InputError(f"{name}: a value is expected after it")
        elif word.startswith(f"{name}="):
            value = word.partition("=")[2]
        else:
            rest.append(word)
    return value, rest


def read_yaml(path: str) -> dict[str, Any]:
    """A mapping from a YAML file, read without executing anything.

    Raises:
        MissingFileError: there is no such file.
        InputError: it is no YAML mapping; the line is named.
    """
    file = Path(path)
    if not file.is_file():
        raise MissingFileError(f"--config {path}: there is no such file")
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"--config {path}: not readable as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise InputError(f"--config {path}: a mapping of options to values is expected")
    return content


def as_words(options: Mapping[str, Any]) -> list[str]:
    """Options as they would be typed, so that values of a file meet the same checks as typed ones."""
    words = []
    for name, value in options.items():
        if isinstance(value, Mapping):
            value = ",".join(f"{key}={entry}" for key, entry in value.items())
        text = value if isinstance(value, str) else json.dumps(value)
        words.append(f"--{name}={text}")
    return words
