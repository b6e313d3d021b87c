"""What a record calls the functions that a training was made of, since no file holds the functions themselves."""

import hashlib
import inspect
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import partial
from numbers import Number

from torch import Tensor


def qualified_name(function: Callable) -> str:
    """Where to import a function from, such as "vaelib.models.build", and the arguments that are fixed, if any.

    Parameters
    ----------
    function : a function or class of a module's (or a notebook's) top level, a `functools.partial` of one, or an
        instance of a dataclass, with numbers, strings, tensors and such functions as arguments

    Raises
    ------
    ValueError
        If it has no name of its own, as a lambda or an object, or an argument that cannot be written down.
    """
    if isinstance(function, partial):
        arguments = [*map(_value, function.args), *(f"{key}={_value(each)}" for key, each in function.keywords.items())]
        return f"{qualified_name(function.func)}({', '.join(arguments)})"
    if is_dataclass(function) and not isinstance(function, type):
        arguments = [f"{key}={_value(each)}" for key, each in _arguments(function).items()]
        return f"{qualified_name(type(function))}({', '.join(arguments)})"
    bound = inspect.ismethod(function) and not isinstance(function.__self__, type)  # type: ignore[attr-defined]
    if bound or not hasattr(function, "__qualname__"):
        owner = type(function.__self__ if bound else function).__name__  # type: ignore[attr-defined]
        raise ValueError(
            f"expected a function or a class, and found {'a method of ' * bound}an object of {owner}, which has no "
            f"name; give what makes it, with its arguments fixed by functools.partial, or make its class a dataclass"
        )
    name = f"{function.__module__}.{function.__qualname__}"
    if "<" in name:
        raise ValueError(
            f"{function!r} cannot be recorded by a name that leads back to it; define it by `def` at the top level of "
            f"a module or notebook, and fix its arguments by functools.partial"
        )
    return name


# Where records of version 0.1.0 have another name
RENAMED = {
    "vaelib.likelihoods.": "vaelib.decoders.",
    "vaelib.posteriors.": "vaelib.encoders.",
    "vaelib.models.mlp(likelihood=": "vaelib.models.mlp(decoder=",
    "vaelib.models.mlp(posterior=": "vaelib.models.mlp(encoder=",
    "vaelib.models.conv(likelihood=": "vaelib.models.conv(decoder=",
    "vaelib.models.conv(posterior=": "vaelib.models.conv(encoder=",
}


def current_name(name: str) -> str:
    """What a function that a record names is called today."""
    for old, new in RENAMED.items():
        name = name.replace(old, new)
    return name


def fingerprint(*functions: Callable) -> str:
    """16 hexadecimal digits that change with the text of somebody's functions, and of those fixed as their arguments.

    "" if all of them are this package's. What they call in turn is not looked at, nor text that is not at hand.
    """
    text = "".join(map(_text, functions))
    return hashlib.sha256(text.encode()).hexdigest()[:16] if text else ""


def _text(function: Callable) -> str:
    if isinstance(function, partial):
        return "".join(_text(each) for each in (function.func, *function.args, *function.keywords.values()))
    if is_dataclass(function) and not isinstance(function, type):
        return "".join(_text(each) for each in (type(function), *_arguments(function).values()))
    if not callable(function) or function.__module__.startswith("vaelib."):
        return ""
    parts = vars(function).values() if isinstance(function, type) else [function]
    return "".join(map(_source, filter(inspect.isfunction, parts)))


def _source(function: Callable) -> str:
    try:
        return inspect.getsource(function)
    except OSError:  # typed at Python's prompt, or made for a dataclass
        return ""


def _arguments(instance: object) -> dict[str, object]:
    return {field.name: getattr(instance, field.name) for field in fields(instance)}  # type: ignore[arg-type]


def _value(value: object) -> str:
    if callable(value):
        return qualified_name(value)
    if isinstance(value, tuple):
        return f"({', '.join(map(_value, value))})"
    if isinstance(value, Tensor):  # by its values
        content = value.detach().cpu().contiguous()
        head = f"{content.dtype} {tuple(content.shape)}".encode()
        return f"tensor:{hashlib.sha256(head + content.view(-1).numpy().tobytes()).hexdigest()[:16]}"
    if not isinstance(value, Number | str | None):
        raise ValueError(f"{value!r} cannot be recorded; a function of its own, without arguments, can")
    return repr(value)
