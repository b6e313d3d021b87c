"""Names of runs: the names of their functions, a hash of the functions' source code, and the name of the folder."""

import ast
import hashlib
import importlib
import inspect
import linecache
import logging
import os
import random
import re
import sys
import sysconfig
import weakref
from collections import defaultdict, deque
from collections.abc import Callable, ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from contextlib import suppress
from dataclasses import asdict, fields, is_dataclass
from functools import cached_property, lru_cache, partial
from numbers import Number
from pathlib import Path
from types import CellType, CodeType, MappingProxyType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

ADAM = "torch.optim.adam.Adam(fused=True)"
PAPER = {"builder": "vaelib.models.build", "objective": "vaelib.objective.negative_elbo"}
INSTALLED = (sysconfig.get_path("stdlib"), str(Path(__file__).parent) + os.sep, "<frozen", "<__array")  # of NumPy

# Names that records of version 0.1.0 still use
RENAMED = {
    r"vaelib\.likelihoods\.": "vaelib.decoders.",
    r"vaelib\.posteriors\.": "vaelib.encoders.",
    r"(vaelib\.models\.(mlp|conv))\(likelihood=": r"\1(decoder=",
    r"(vaelib\.models\.(mlp|conv))\(posterior=": r"\1(encoder=",
}


def current_name(name: str) -> str:
    """Return the present name of a function that a record names."""
    for old, new in RENAMED.items():
        name = re.sub(old, new, name)
    return name


def qualified_name(function: Callable) -> str:
    """Return a function's import path, such as "vaelib.models.build", and its fixed arguments, if any.

    Parameters
    ----------
    function : a function or class at the top level of a module or notebook, a `functools.partial` of one, or an
        instance of a dataclass. Arguments can be numbers, strings, tensors and such functions

    Raises
    ------
    ValueError
        If it doesn't have such a name, like a lambda or an object, or if an argument can't be recorded.
    """
    if isinstance(function, partial):
        arguments = [*map(_value, function.args), *(f"{key}={_value(each)}" for key, each in function.keywords.items())]
        return f"{qualified_name(function.func)}({', '.join(arguments)})"
    if is_dataclass(function) and not isinstance(function, type):
        arguments = [f"{each.name}={_value(getattr(function, each.name))}" for each in fields(function)]
        return f"{qualified_name(type(function))}({', '.join(arguments)})"
    name = getattr(function, "__qualname__", f"<an object of {type(function).__name__}>")
    if "<" in name or (inspect.ismethod(function) and not isinstance(function.__self__, type)):
        raise ValueError(
            f"{name} can't be recorded by name: it's a lambda, a method, an object, or defined within a function; "
            "define it by `def` at the top level of a module or notebook, and fix its arguments by functools.partial, "
            "or make its class a dataclass"
        )
    return f"{_module(function)}.{name}"


def record(config: Any, data: Mapping[str, Any], functions: Mapping[str, Callable | None], meaning: str) -> dict:
    """Make a run's record: its settings, data, functions by name, and their meaning."""
    names = {key: each and qualified_name(each) for key, each in functions.items()}
    names = {key: None if each == ADAM else each for key, each in names.items()}
    return {"settings": asdict(config), "functions": names, "data": dict(data), "meaning": meaning}


def identity(record: Mapping[str, Any]) -> dict[str, object]:
    """Return everything that distinguishes a run from others.

    Options that aren't set are omitted, so that a new option doesn't change old runs.
    """
    every = record["settings"] | record["functions"]
    every |= {"data": record["data"].get("fingerprint"), "meaning": record.get("meaning") or None}
    return {key: value for key, value in every.items() if value is not None}


def difference(found: Mapping[str, object], expected: Mapping[str, object]) -> str:
    """Describe the first difference between two identities. Return "" if they are equal."""
    for key in sorted(found.keys() | expected.keys()):
        if found.get(key) != expected.get(key):
            what = "on other images or labels: fingerprint" if key == "data" else f"with {key}"
            return f"{what} {found.get(key)!r}, not {expected.get(key)!r}"
    return ""


def folder_name(record: Mapping[str, Any], defaults: Mapping[str, Any], stands: bool = False) -> str:
    """Make a folder name such as `mnist-k2-e10-s0`: data, K, epochs, seed, and values other than the paper's.

    It has at most 200 bytes.

    Parameters
    ----------
    record : of the run
    defaults : the settings that the name omits
    stands : whether the meaning is a name that the user gave instead of the functions' names
    """
    settings, meaning = record["settings"], record["meaning"]
    parts = ["{}-k{latent_dim}-e{epochs}-s{seed}".format(record["data"]["name"], **settings)]
    short = {"batch_size": "b", "learning_rate": "r", "precision": "", "max_grad_norm": "clip", "patience": "patience"}
    for key, letters in short.items():
        if (value := settings[key]) != defaults[key]:
            parts.append(letters + str(value).removesuffix(".0"))
    for key, function in record["functions"].items():
        if function and not stands and function != PAPER.get(key):
            without_modules = re.sub(r"\b(\w+\.)+(?=[A-Za-z_])", "", function)
            parts.append(re.sub(r"[^\w.=-]+", "_", without_modules).strip("_"))
    if meaning:
        parts.append(meaning if stands else meaning[:8])
    whole = "-".join(parts).encode()
    if len(whole) > 200:  # file systems take 255
        whole = f"{whole[:180].decode(errors='ignore')}-{hashlib.sha256(whole).hexdigest()[:16]}".encode()
    return os.fsdecode(whole)  # the same bytes in every locale


def meaning(*functions: Callable | None) -> str:
    """Hash the source code of custom functions (16 hex digits). Return "" if all belong to installed packages.

    The hash is computed from syntax trees, so comments and docstrings don't count. It includes everything that the
    functions read: defaults, closures, globals, base classes and other functions, hashed in the same way. It doesn't
    depend on the version of Python. It ignores environment variables, files, `sys.argv`, modules imported by a
    name in a string, changed functions of installed packages, loggers' settings and keys that are held weakly. Pass
    such values as arguments.

    Raises
    ------
    ValueError
        If the source code of a function is missing, or has changed since it was imported, or if the content of a value
        can't be known: TorchScript, sparse tensors, images, files, locks, weak references, `globals()`, `eval`, and
        random generators whose seed was drawn. `train(..., name=...)` stands for them.
    """
    reader = _Reader()
    digits = reader.hash(functions)[:16]
    kind = str(torch.get_default_dtype()).removeprefix("torch.")  # which changes what every function does
    return ("" if kind == "float32" else kind) + (digits if reader.own else "")


# Values with content besides their attributes
PLAIN = Tensor | np.ndarray | Number | np.generic | str | bytes | None | tuple | list | set | frozenset | dict
ADVICE = "use numbers, strings, arrays, tensors or a seeded torch.Generator, or name the run: train(..., name=...)"

# Content of types that can't be pickled, or only with more than this
PARTS = {property: ("fget", "fset"), cached_property: ("func",), slice: ("start", "stop", "step")}
PARTS |= {re.Pattern: ("pattern", "flags"), CellType: ("cell_contents",)}


class _Reader:
    """Hash values. `own` is True once a function or class from outside the installed packages was among them."""

    def __init__(self) -> None:
        self.own = False
        self.known: dict[int, tuple[str, object]] = {}  # with the objects, so that no other object gets their id

    def hash(self, value: Any) -> str:
        """Hash the content of a value or an object, or the source code of a function or a class."""
        if id(value) not in self.known:
            self.known[id(value)] = "itself", value  # for cycles, while its content is hashed
            try:
                attributes = _state(value) if isinstance(value, PLAIN) else {}  # of a subclass, or set on a tensor
                parts = self.hash(type(value)), self._content(value), *([self.hash(attributes)] if attributes else [])
            except (AttributeError, LookupError, ReferenceError, RuntimeError, TypeError) as error:
                raise ValueError(f"can't record {type(value)} ({error}); {ADVICE}") from error
            self.known[id(value)] = hashlib.sha256(repr(parts).encode()).hexdigest(), value
        return self.known[id(value)][0]

    def each(self, values: Iterable) -> list[str]:
        return [self.hash(each) for each in values]

    def _content(self, value: Any) -> object:
        if isinstance(value, Tensor):
            return _digest(value) + "other" * (value.requires_grad != isinstance(value, nn.Parameter))  # than usual
        if isinstance(value, np.ndarray | memoryview):
            with suppress(TypeError, ValueError):  # torch lacks strings, dates and other types
                return _digest(torch.as_tensor(np.array(value)))  # a copy, because torch lacks negative strides
            return str(np.asarray(value).dtype), self.hash(value.tolist())
        if isinstance(value, Number | np.generic | str | bytes | None):
            return repr(value.item() if isinstance(value, np.generic) else value)
        if isinstance(value, tuple | list | deque | KeysView | ValuesView | ItemsView):
            return (self.each(value), value.maxlen) if isinstance(value, deque) else self.each(value)
        if isinstance(value, set | frozenset):
            return sorted(self.each(value))
        if isinstance(value, dict | MappingProxyType):
            factory = [self.hash(value.default_factory)] if isinstance(value, defaultdict) else []
            return self.each(value.keys()), self.each(value.values()), *factory
        if isinstance(value, torch.Generator | random.Random | np.random.RandomState | np.random.SeedSequence):
            seed = value.initial_seed() if isinstance(value, torch.Generator) else getattr(value, "entropy", 2**64)
            if np.max(seed) >= 2**48:
                raise TypeError("its seed is unknown, or was drawn")
            if isinstance(value, torch.Generator):
                return seed
        if isinstance(value, partial):
            return self.each((value.func, value.args, value.keywords))
        within = PARTS.get(type(value), ("__wrapped__", "__func__", "__self__"))
        inner = self.each(getattr(value, name, None) for name in within)
        read = self._class if isinstance(value, type) else self._function if inspect.isfunction(value) else self._object
        return inner, read(value)

    def _object(self, value: Any) -> object:
        if isinstance(value, ModuleType) and not _is_installed(value):
            return value.__name__, self.hash({name: each for name, each in vars(value).items() if name[:2] != "__"})
        # Use changes these, such as the cache of a singledispatch
        if isinstance(value, ModuleType | logging.Logger | weakref.WeakKeyDictionary):
            return getattr(value, "__name__", getattr(value, "name", ""))
        if hasattr(value, "__qualname__") and not isinstance(value, Iterator):  # a function of C code
            return f"{getattr(value, '__module__', None)}.{value.__qualname__}"
        if hasattr(value, "fingerprint"):  # a data set; its images are already hashed
            return value.fingerprint
        kind, content = type(value), self.hash(_state(value))  # a repr may omit or round values
        reduced = () if kind in PARTS else value.__reduce_ex__(4)  # fails if the content can't be known
        if _is_installed(sys.modules.get(kind.__module__)) and not hasattr(value, "__dict__"):
            content = re.sub("0x[0-9a-fA-F]+", "", repr(value))  # without its address
        by_python = kind.__getstate__ is object.__getstate__ or inspect.isfunction(kind.__getstate__)
        if content == repr(value) or (by_python and kind.__reduce__ is object.__reduce__):
            return content
        return content, self.each(reduced)

    def _class(self, kind: type) -> object:
        name = f"{_module(kind)}.{kind.__qualname__}"
        if _is_installed(sys.modules.get(kind.__module__)):
            return name
        self.own = True
        members = {key: each for key, each in sorted(vars(kind).items()) if _is_written(key, each)}
        known = fields(kind) if is_dataclass(kind) else ()
        defaults = [(each.name, each.default, each.default_factory) for each in known]
        return name, self.each((kind.__bases__, members, defaults))

    def _function(self, function: Any) -> object:
        closure = self.each(each.cell_contents for each in function.__closure__ or () if each != CellType())
        if _is_installed(function.__code__.co_filename):
            # A call changes the closure of a compiled function
            kept = [] if hasattr(function, "_torchdynamo_orig_callable") else closure
            return function.__module__, function.__qualname__, kept
        self.own = True
        trees, around = _trees(function), function.__globals__
        nodes = [node for tree in trees for node in ast.walk(tree)]
        names = [node for node in nodes if isinstance(node, ast.Name)]
        accesses = [node for node in nodes if isinstance(node, ast.Attribute)]
        attributes, owners = {node.attr for node in accesses}, {id(node.value) for node in accesses}
        passed = {node.id for node in names if id(node) not in owners}  # alone, as in f(x), and not only as in x.y
        declared = {name for node in nodes if isinstance(node, ast.Global) for name in node.names}
        changed = declared & {node.id for node in names if not isinstance(node.ctx, ast.Load)}
        if {node.id for node in names} & {"eval", "exec", "globals"} - around.keys() or "__globals__" in attributes:
            raise TypeError(f"{function.__qualname__} uses eval, exec, globals or __globals__")
        compiled = {name for code in _codes(function.__code__) for name in code.co_names}  # without local variables
        read = {node.id for node in names} & compiled & around.keys() - changed
        values = [(name, around[name], attributes) for name in sorted(read)]
        values += [(name, module, attributes | taken) for name, module, taken in _imported(nodes, around)]
        found = [(name, self.hash(each) if name in passed else self._global(each, used)) for name, each, used in values]
        if own := {key: each for key, each in vars(function).items() if key != "__wrapped__"}:
            found.append(("__dict__", self.hash(own)))
        return list(map(_plain, trees)), self.each((function.__defaults__, function.__kwdefaults__)), closure, found

    def _global(self, value: Any, attributes: set[str], *within: ModuleType) -> object:
        """Hash a global. For a custom module, hash only the attributes that the function uses."""
        if not isinstance(value, ModuleType) or _is_installed(value) or "__dict__" in attributes:
            return self.hash(value)
        if value in within:  # modules can import each other
            return value.__name__
        used = sorted((attributes | {"__getattr__"}) & vars(value).keys())
        return [(name, self._global(vars(value)[name], attributes, *within, value)) for name in used]


def _module(value: Any) -> str:
    """Return the name by which an import finds the value's module, even if `python -m` runs it as `__main__`."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec.name if spec and value.__module__ == "__main__" else value.__module__


def _state(value: Any) -> dict[str, Any]:
    """Return an object's attributes without its mode and cached properties, which change during use."""
    hidden = torch.jit.ScriptModule, torch.UntypedStorage, torch.TypedStorage, *weakref.ProxyTypes
    if issubclass(type(value), hidden):  # a proxy's class isn't its type
        raise TypeError("its values aren't in Python")
    state = object.__getstate__(value)
    attributes, slots = state if isinstance(state, tuple) else (state, None)
    kept = {key: each for key, each in (attributes or {}).items() if not _is_cache(getattr(type(value), key, None))}
    if isinstance(value, nn.Module):
        del kept["training"]
    return kept | (slots or {})


def _is_cache(inherited: object) -> bool:
    """Return whether a class member is a cached property. A property isn't, and a function can be a default."""
    return hasattr(inherited, "__get__") and not hasattr(inherited, "__set__") and not callable(inherited)


def _trees(function: Any) -> list[ast.Lambda | ast.FunctionDef | ast.AsyncFunctionDef]:
    """Return the syntax tree of a function, and of others that begin in its line, such as lambdas."""
    code, found = function.__code__, []
    linecache.checkcache(code.co_filename)
    text = "".join(linecache.getlines(code.co_filename, function.__globals__))
    with suppress(SyntaxError, ValueError):
        tree, codes = _parsed(text)
        begun = {each.co_firstlineno for each in codes if _essence(each) == _essence(code)}  # lines may have moved
        for each in ast.walk(tree):
            if isinstance(each, ast.Lambda | ast.FunctionDef | ast.AsyncFunctionDef):
                first = [each, *getattr(each, "decorator_list", [])]
                if min(part.lineno for part in first) in begun and getattr(each, "name", "<lambda>") == code.co_name:
                    found.append(each)
    if not found:
        raise ValueError(
            f"the source code of {function.__module__}.{function.__qualname__} is missing, or has changed since it was "
            "imported, so it can't be recorded; start Python again, define functions in a file or a notebook, or give "
            "the run a name that stands for them: train(..., name=...)"
        )
    return found


def _imported(nodes: list[ast.AST], around: dict[str, Any]) -> Iterator[tuple[str, ModuleType, set[str]]]:
    """Import the modules that a function's nodes import. Yields their names, the modules, and the names taken."""
    for node in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom):
            taken = {each.name for each in node.names}
            modules = taken if isinstance(node, ast.Import) else {"." * node.level + (node.module or "")}
            for name in sorted(modules):
                with suppress(ImportError):
                    yield name, importlib.import_module(name, around.get("__package__")), taken


@lru_cache(maxsize=32)
def _parsed(text: str) -> tuple[ast.AST, list[CodeType]]:
    """Return the syntax tree and all code objects of a file or a notebook's cell."""
    compiled = compile(text, "", "exec", dont_inherit=True, flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    return ast.parse(text), _codes(compiled)


def _codes(code: CodeType) -> list[CodeType]:
    """Return a code object and all code objects in it."""
    return [code, *(each for inner in code.co_consts if isinstance(inner, CodeType) for each in _codes(inner))]


def _essence(code: CodeType) -> object:
    """Return the content of a code object, without its position."""
    constants = [_essence(each) if isinstance(each, CodeType) else (type(each), each) for each in code.co_consts]
    return code.co_name, code.co_code, code.co_names, constants


def _plain(tree: object) -> object:
    """Convert a syntax tree to tuples, without docstrings and empty fields, which differ between versions of Python."""
    if isinstance(tree, list):
        return tuple(map(_plain, tree))
    if not isinstance(tree, ast.AST):
        return repr(tree)
    content = {name: getattr(tree, name, None) for name in tree._fields if name not in ("kind", "type_comment")}
    if isinstance(tree, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and ast.get_docstring(tree, False):
        content["body"] = tree.body[1:]
    return type(tree).__name__, tuple((name, _plain(each)) for name, each in content.items() if each not in (None, []))


def _is_written(key: str, member: Any) -> bool:
    """Return whether a class member was written by hand, and not added by Python, a dataclass or a named tuple."""
    if not key.startswith("__"):
        return key not in ("_make", "_replace", "_asdict")
    code: Any = getattr(inspect.unwrap(member), "__code__", None)
    by_hand = code is not None and not key.startswith("__annotate") and not _is_installed(code.co_filename)
    return by_hand and (key == "__call__" or code.co_filename != "<string>")


def _is_installed(place: ModuleType | str | None) -> bool:
    """Return whether a module or a file belongs to Python, this package, or another installed package."""
    if isinstance(place, ModuleType):
        if place.__name__.partition(".")[0] in ("torch", *sys.builtin_module_names):
            return True
        place = getattr(place, "__file__", None)
    return place is not None and (place.startswith(INSTALLED) or "site-packages" in place or "dist-packages" in place)


def _value(value: object) -> str:
    if callable(value):
        return qualified_name(value)
    if isinstance(value, tuple):
        return f"({', '.join(map(_value, value))})"
    if isinstance(value, Tensor):
        return _digest(value)
    if not isinstance(value, Number | str | None):
        raise ValueError(f"can't record the argument {value!r}; define a function that doesn't need it")
    return repr(value)


def _digest(tensor: Tensor) -> str:
    """Hash a tensor's values."""
    if tensor.layout != torch.strided or tensor.is_nested or tensor.is_meta:
        raise ValueError("can't record a tensor that is sparse, nested or on the meta device; make it dense")
    content = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    head = f"{content.dtype} {tuple(content.shape)}".encode()
    values = content.reshape(-1).view(torch.uint8).numpy().tobytes()  # NumPy doesn't support bfloat16
    return f"tensor:{hashlib.sha256(head + values).hexdigest()[:16]}"
