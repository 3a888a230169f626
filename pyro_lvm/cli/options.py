"""Options of the command line, read from the signatures and docstrings of the functions they are passed to."""

import difflib
import functools
import inspect
import operator
import re
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args, get_origin

from jsonargparse import SUPPRESS, ActionYesNo, ArgumentParser, Namespace, get_loader

__all__ = ["Parser", "Setting", "UsageError", "read", "read_config"]

_PLAIN = (bool, int, float, str)
_NONE = type(None)
_UNIONS = (typing.Union, types.UnionType)
_METAVARS: dict[Any, str] = {bool: "true|false", int: "N", float: "X", str: "TEXT", dict: "MAPPING", Literal: "CHOICE"}


class UsageError(ValueError):
    """A command line, or a file of settings, that cannot be understood."""


@dataclass(frozen=True)
class Setting:
    """A parameter of a function that can be given on the command line or in a file.

    Attributes:
        name: of the setting; the option is `--name`, with dashes.
        type: what it may be, of bool, int, float, str, Literal, dict and None.
        default: what it is where left out.
        help: from the docstring.
        several: whether it is a tuple, of elements of `type`.
    """

    name: str
    type: Any
    default: Any
    help: str
    several: bool = False

    @property
    def option(self) -> str:
        """As it is typed."""
        return f"-{self.name}" if len(self.name) == 1 else f"--{self.name.replace('_', '-')}"

    @property
    def metavar(self) -> str:
        """A word for the value, in the help."""
        members = [member for member in _members(self.type) if member is not _NONE]
        return "|".join(_METAVARS.get(member) or _METAVARS[get_origin(member)] for member in members)

    @property
    def words(self) -> str:
        """What it may be, for an error."""
        return f"{_words(self.type)}, any number of them" if self.several else _words(self.type)


class Parser(ArgumentParser):
    """A parser of one command whose errors are one line, and which knows the nearest option to a mistyped one."""

    def __init__(self, prog: str, description: str) -> None:
        super().__init__(prog=prog, usage=f"{prog} [options]", description=description, allow_abbrev=False)
        self.settings: dict[str, Setting] = {}
        self.add_argument("--debug", action="store_true", help="Show the traceback of an error.")

    def add_settings(self, title: str, settings: Iterable[Setting], *, optional: bool = False) -> None:
        """Adds a group of options.

        Args:
            optional: leave out of the result what is not given, for whoever fills in the defaults.
        """
        group = self.add_argument_group(title)
        for setting in settings:
            self.settings[setting.name] = setting
            usual = list(setting.default) if setting.several else setting.default
            common: dict[str, Any] = {"help": setting.help, "default": SUPPRESS if optional else usual}
            if setting.type is bool:
                group.add_argument(setting.option, action=ActionYesNo(no_prefix="no-"), **common)
                continue
            several: dict[str, Any] = {"nargs": "*"} if setting.several else {}
            group.add_argument(setting.option, type=setting.type, metavar=setting.metavar, **several, **common)

    def parse(self, argv: Sequence[str], config: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The settings: those of the command line, else of `config`, else the defaults.

        Raises:
            UsageError: for an unknown option or setting, with the nearest, and for a value of the wrong type.
        """
        arguments = [_dashed(token) for token in argv]
        for token in arguments:
            name = re.split("[=.]", token)[0]
            if name.startswith("--") and len(name) > 2 and name not in self._option_string_actions:
                raise UsageError(f"there is no option '{name}'{nearest(name, self._option_string_actions)}")
        given = None if config is None else self._read(config)
        result = self.parse_args(arguments, namespace=given).as_dict()
        del result["debug"]
        return {n: tuple(v) if n in self.settings and self.settings[n].several else v for n, v in result.items()}

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raises instead of exiting."""
        raise UsageError(self._readable(message))

    def _read(self, config: Mapping[str, Any]) -> Namespace:
        for name, value in config.items():
            if name not in self.settings:
                raise UsageError(f"'--config' holds {name!r}, which is no setting here{nearest(name, self.settings)}")
            setting = self.settings[name]
            if setting.several and not isinstance(value, list):
                raise UsageError(f"'{name}' in '--config' must be a list, not {value!r}.")
            if value is None and _NONE not in _members(setting.type):  # which jsonargparse lets pass
                raise UsageError(f"'{name}' in '--config' must be {setting.words}, not null.")
        return self.parse_object(dict(config), defaults=False, _skip_required=True)

    def _readable(self, message: str) -> str:
        """One of jsonargparse's messages, which are of several lines and name Python's types, as one line."""
        found = re.match(r'Parser key "(\w+)"', message)
        if found is None or found[1] not in self.settings:
            return " ".join(message.split())
        setting = self.settings[found[1]]
        value = re.split(r"(?:Given|Got) value: ", message)[-1].splitlines()[0]
        return f"'{setting.option}' must be {setting.words}, not {value!r}{_hint(setting.type, value)}"


def read(
    function: Callable[..., Any],
    *,
    skip: Collection[str] = (),
    names: Mapping[str, str] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> list[Setting]:
    """The parameters of a function as settings.

    Args:
        function: with type hints, and a docstring with a section "Args:".
        skip: parameters to leave out.
        names: where given, the settings' names and the parameters that they stand for; others are left out.
        defaults: by parameter, those that are other than the function's own.
    """
    hints, helps = typing.get_type_hints(function), _helps(inspect.getdoc(function) or "")
    parameters = {n: p for n, p in inspect.signature(function).parameters.items() if n not in skip}
    result = []
    for name, parameter in (names or {n: n for n in parameters}).items():
        kind, several = _kind(hints[parameter])
        usual = (defaults or {}).get(parameter, parameters[parameter].default)
        result.append(Setting(name, kind, usual, helps.get(parameter, ""), several))
    return result


def read_config(path: str) -> dict[str, Any]:
    """The settings in a JSON or YAML file.

    Raises:
        UsageError: where it cannot be read or holds something else.
    """
    try:
        content = get_loader("yaml")(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"'--config' = '{path}' cannot be read: {error.strerror}.") from error
    except Exception as error:  # whatever the parser of YAML stumbled over
        what = " ".join(str(error).split())
        raise UsageError(f"'--config' = '{path}' is neither JSON nor YAML: {what}.") from error
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise UsageError(f"'--config' = '{path}' must hold names and values, as a run's config.json does.")
    return content


def nearest(name: str, names: Iterable[str]) -> str:
    """Words for the end of an error: the nearest of some names, or where to find them."""
    near = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f": did you mean '{near[0]}'?" if near else "; --help lists what there is."


def _dashed(token: str) -> str:
    """An option with dashes where it was typed with underscores; its value as it is."""
    if not token.startswith("--"):
        return token
    name, rest = re.match("([^=.]*)(.*)", token, re.DOTALL).groups()  # type: ignore[union-attr]
    return name.replace("_", "-") + rest


def _kind(hint: Any) -> tuple[Any, bool]:
    """A type hint as the type of an option, and whether it takes several values.

    Classes and functions, which a shell cannot pass, are left out of a union.

    Raises:
        TypeError: for a hint of which nothing is left.
    """
    several = get_origin(hint) in (tuple, list, Sequence)
    plain = [member for member in map(_plain, _members(get_args(hint)[0] if several else hint)) if member is not None]
    if not plain:
        raise TypeError(f"no option can be made of a parameter of type {hint}.")
    return functools.reduce(operator.or_, plain), several


def _plain(hint: Any) -> Any:
    if hint in _PLAIN or hint is _NONE or get_origin(hint) is Literal:
        return hint
    return dict[str, Any] if get_origin(hint) in (dict, Mapping) else None


def _members(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in _UNIONS else (kind,)


def _words(kind: Any) -> str:
    if len(_members(kind)) > 1:
        return " or ".join(_words(member) for member in _members(kind))
    if get_origin(kind) is Literal:
        return " or ".join(f"'{value}'" for value in get_args(kind))
    if get_origin(kind) is dict:
        return "a mapping such as '{\"name\": 1}'"
    names = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", _NONE: "null"}
    return names[kind]


def _hint(kind: Any, value: str) -> str:
    choices = [c for member in _members(kind) if get_origin(member) is Literal for c in get_args(member)]
    return nearest(value, choices) if difflib.get_close_matches(value, choices, cutoff=0.5) else "."


def _helps(doc: str) -> dict[str, str]:
    """The descriptions in a docstring's section "Args:", of which one may be of several parameters."""
    section = re.search(r"^Args:\n((?:(?: +.*)?\n)*)", doc + "\n", re.MULTILINE)
    entries = re.split(r"^ {4}(?=\w)", section[1], flags=re.MULTILINE)[1:] if section else []
    helps = {}
    for entry in entries:
        names, text = entry.split(":", 1)
        for name in names.split(","):
            helps[name.strip()] = _capitalised(" ".join(text.split()))
    return helps


def _capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]
