"""What a record calls the functions that a training was made of, since no file holds the functions themselves."""

from collections.abc import Callable
from dataclasses import is_dataclass
from functools import partial
from numbers import Number


def described(function: Callable) -> str:
    """Where to import a function from, such as "vaelib.models.build", and the arguments that are fixed, if any.

    The name is all that is known of it: a function that is changed needs another name, or its earlier runs deleted.

    Parameters
    ----------
    function : a function or class of a module's (or a notebook's) top level, a `functools.partial` of one, or an
        instance of a dataclass, with numbers, strings and such functions as arguments

    Raises
    ------
    ValueError
        If it has no name of its own, as a lambda, or an argument that cannot be written down.
    """
    if isinstance(function, partial):
        arguments = [*map(_value, function.args), *(f"{key}={_value(each)}" for key, each in function.keywords.items())]
        return f"{described(function.func)}({', '.join(arguments)})"
    if is_dataclass(function) and not isinstance(function, type):
        arguments = [f"{key}={_value(each)}" for key, each in vars(function).items()]
        return f"{described(type(function))}({', '.join(arguments)})"
    name = f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', '<nameless>')}"
    if "<" in name:
        raise ValueError(
            f"{function!r} cannot be recorded by a name that leads back to it; define it by `def` at the top level of "
            f"a module or notebook, and fix its arguments by functools.partial"
        )
    return name


def _value(value: object) -> str:
    if callable(value):
        return described(value)
    if isinstance(value, tuple):
        return f"({', '.join(map(_value, value))})"
    if not isinstance(value, Number | str | None):
        raise ValueError(f"{value!r} cannot be recorded; a function of its own, without arguments, can")
    return repr(value)
