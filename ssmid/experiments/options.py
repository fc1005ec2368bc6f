"""Options by name, from JSON or a command line: each is consumed or is an error that names the nearest known one."""

from __future__ import annotations

import difflib
import inspect
import json
import types
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

_KINDS: dict[Any, tuple[str, tuple[type, ...]]] = {
    bool: ("true or false", (bool,)),
    int: ("a whole number", (int,)),
    float: ("a number", (int, float)),
    str: ("a text", (str,)),
    Mapping: ("options by name", (Mapping,)),
    type(None): ("null", (type(None),)),
}
"""What JSON has for a type of Python, in words, and the types that are it."""


def override(text: str) -> tuple[str, Any]:
    """``key=value`` as the key and the value, which is JSON or else text."""
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise ValueError(f"override: expected key=value, got {text!r}")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


def place(values: dict[str, Any], key: str, value: Any) -> None:
    """Puts ``value`` at the dotted ``key``."""
    *outer, last = key.split(".")
    for name in outer:
        values = values.setdefault(name, {})
        if not isinstance(values, dict):
            raise ValueError(f"{key}: expected a key within a mapping, got one within {values!r}")
    values[last] = value


def called(function: Callable[..., Any], options: Mapping[str, Any], prefix: str, what: str, *given: Any, **more: Any) -> Any:
    """``function(*given, **more, **options)``; ValueError as of :func:`expect_known` and :func:`expect_types`."""
    expect_known(function, options, prefix, what, len(given), more)
    expect_types(function, options, prefix)
    return function(*given, **more, **options)


def expect_known(
    function: Callable[..., Any], options: Mapping[str, Any], prefix: str, what: str, given: int = 0, more: Collection[str] = ()
) -> None:
    """ValueError for options that ``function`` does not take, naming the nearest, and for missing ones.

    prefix : of the keys in messages   what : a key is expected to be   given, more : what it gets by position, and else by name
    """
    signature = inspect.signature(function)
    keywords = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    known = [name for name, p in signature.parameters.items() if p.kind in keywords and name not in more][given:]
    for name in options:
        if name not in known:
            raise ValueError(f"{prefix}{name}: expected {what}, got an unknown one{_nearest(name, known, prefix)}")
    missing = [name for name in known if signature.parameters[name].default is inspect.Parameter.empty and name not in options]
    if missing:
        raise ValueError(f"{prefix}{missing[0]}: expected a value, got none")


def expect_types(function: Callable[..., Any], options: Mapping[str, Any], prefix: str) -> None:
    """ValueError for options that are not what ``function``, whose annotations say it, takes: a text for a number above all.

    >>> expect_types(lambda order: None, {"order": "four"}, "")  # says nothing of what it takes
    >>> def made(order: int, *, rate: float | None = None): ...
    >>> expect_types(made, {"order": 4, "rate": 1}, "")
    >>> expect_types(made, {"order": 4, "rate": "fast"}, "model.")
    Traceback (most recent call last):
    ValueError: model.rate: expected a number or null, got 'fast'
    """
    hints = get_type_hints(function.__init__ if isinstance(function, type) else function)
    for name, value in options.items():
        words = _unlike(value, hints.get(name, Any))
        if words:
            raise ValueError(f"{prefix}{name}: expected {words}, got {value!r}")


def _unlike(value: Any, hint: Any) -> str:
    """What ``hint`` asks for, in words, where ``value`` is something else; nothing where it is that."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        each = [_unlike(value, one) for one in inner]
        return " or ".join(each) if all(each) else ""
    if origin is Literal:
        return "" if value in inner else f"one of {', '.join(map(str, inner))}"
    if origin in (Sequence, tuple):
        listed = isinstance(value, Sequence) and not isinstance(value, str)
        return "" if listed and not any(_unlike(one, inner[0]) for one in value) else f"a list, each {_unlike(object(), inner[0])}"
    words, accepted = _KINDS.get(Mapping if origin in (Mapping, dict) else hint, ("", (object,)))
    # to Python a truth value is a whole number
    return "" if isinstance(value, accepted) and not (isinstance(value, bool) and hint in (int, float)) else words


def _nearest(name: str, known: list[str], prefix: str) -> str:
    near = difflib.get_close_matches(name, known, 1, 0.5)
    return f"; did you mean {prefix}{near[0]}?" if near else f"; there are {', '.join(prefix + k for k in known)}"
