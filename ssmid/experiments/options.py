"""Options by name, from JSON or a command line: each is consumed or is an error that names the nearest known one."""

from __future__ import annotations

import difflib
import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any


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
    """``function(*given, **more, **options)``; ValueError for options that it does not take, naming the nearest, and for missing ones.

    prefix : of the keys in messages   what : a key is expected to be
    """
    signature = inspect.signature(function)
    keywords = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    known = [name for name, p in signature.parameters.items() if p.kind in keywords and name not in more][len(given) :]
    for name in options:
        if name not in known:
            raise ValueError(f"{prefix}{name}: expected {what}, got an unknown one{_nearest(name, known, prefix)}")
    missing = [name for name in known if signature.parameters[name].default is inspect.Parameter.empty and name not in options]
    if missing:
        raise ValueError(f"{prefix}{missing[0]}: expected a value, got none")
    return function(*given, **more, **options)


def _nearest(name: str, known: list[str], prefix: str) -> str:
    near = difflib.get_close_matches(name, known, 1, 0.5)
    return f"; did you mean {prefix}{near[0]}?" if near else f"; there are {', '.join(prefix + k for k in known)}"
