"""Who may enter: single values at the public boundary are of the kind that the parameter names, or refused by name.

A class in place of its instance, a text, a lone member in place of a list: each would be iterated, compared or skipped
without an error further in.
"""

import math
import os
from collections.abc import Iterable, Mapping, Set
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np

from multislot_rerank.errors import InvalidInput

__all__ = ["instance", "label", "members", "names", "number", "target_file", "whole"]

_NO_NUMBERS: tuple[type[Any], ...] = (bool, np.bool_, np.timedelta64)  # though Python registers them as such


def instance(name: str, value: object, kind: Any) -> Any:
    """Return the value if it is one of ``kind``, a type or a union of types."""
    if isinstance(value, kind):
        return value
    kinds = getattr(kind, "__args__", (kind,))
    wanted = " or ".join(one.__name__ for one in kinds)
    raise InvalidInput(f"{name}={_shown(value)} is no {wanted}; {_remedy(value, kinds)}")


def label(name: str, value: object) -> object:
    """Return one value that an attribute can have: hashable, and equal to itself."""
    try:
        hash(value)
        usable = value is not None and bool(value == value)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"{name}={_shown(value)} cannot be compared ({error}); give one text or number") from error
    if not usable or isinstance(value, type):
        raise InvalidInput(f"{name}={_shown(value)} is no value of an attribute; give one text or number")
    return value


def members(name: str, values: object, kinds: Any) -> tuple[Any, ...]:
    """Return the values as a tuple if each is an instance of one of ``kinds``."""
    allowed = getattr(kinds, "__args__", (kinds,))
    wanted = ", ".join(kind.__name__ for kind in allowed)
    if isinstance(values, kinds):
        raise InvalidInput(f"{name}={_shown(values)} is one {type(values).__name__}; give a list of them")
    if isinstance(values, (str, bytes, Mapping, Set, type)) or not isinstance(values, Iterable):
        raise InvalidInput(f"{name}={_shown(values)} is no list; give a list of {wanted}")
    found = tuple(values)
    for position, value in enumerate(found):
        if not isinstance(value, kinds):
            raise InvalidInput(f"{name}[{position}]={_shown(value)} is none of {wanted}; {_remedy(value, allowed)}")
    return found


def names(name: str, values: object) -> tuple[str, ...]:
    """Return distinct, non-empty texts as a tuple."""
    if isinstance(values, str) or not isinstance(values, Iterable) or isinstance(values, Set | Mapping):
        raise InvalidInput(f"{name}={_shown(values)} is no list of names; give a list of texts")
    found = tuple(values)
    for position, value in enumerate(found):
        if not isinstance(value, str) or not value:
            raise InvalidInput(f"{name}[{position}]={_shown(value)} is no name; give a text")
        if found.index(value) != position:
            raise InvalidInput(f"{name} has {value!r} twice; keep one")
    return tuple(str(value) for value in found)


def number(name: str, value: object) -> float:
    """Return one finite real number as a float; truth values and durations are none."""
    if isinstance(value, _NO_NUMBERS) or not isinstance(value, Real):
        raise InvalidInput(f"{name}={_shown(value)} must be a number")
    try:
        plain = float(value)
    except (OverflowError, ValueError) as error:
        raise InvalidInput(f"{name} must be finite and below 1.8e308 ({error})") from error
    if not math.isfinite(plain):
        raise InvalidInput(f"{name}={plain} must be finite and a number")
    return plain


def whole(name: str, value: object, least: int) -> int:
    """Return one whole number of at least ``least`` as an int."""
    if isinstance(value, _NO_NUMBERS) or not isinstance(value, Integral) or int(value) < least:
        raise InvalidInput(f"{name}={_shown(value)} must be at least {least}, a whole number")
    return int(value)


def target_file(path: str | os.PathLike[str]) -> Path:
    """Return the path of a file to write if its folder is there; a mistyped one is not made."""
    target = Path(path)
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{target}: the folder {target.parent} does not exist; make it first")
    if target.is_dir():
        raise IsADirectoryError(f"{target} is a folder; give the name of a file in it")
    return target


def _remedy(value: object, kinds: tuple[type[Any], ...]) -> str:
    if isinstance(value, type) and issubclass(value, kinds):
        return f"give an instance: {value.__name__}(...)"
    return "give one as its constructors make them"


def _shown(value: object) -> str:
    text = f"the class {value.__name__}" if isinstance(value, type) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
