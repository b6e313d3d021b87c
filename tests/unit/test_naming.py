"""What a run is: the meaning of functions changes with what they do, and with nothing else."""

import importlib
import importlib.util
import linecache
import logging
import random
import sys
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, singledispatch
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import elu, relu
from torch.optim.lr_scheduler import CosineAnnealingLR

from vaelib import TrainConfig, binarization, burda, models, naming, objective, runs, training

TEXT = '''
"""A module of somebody's."""
import functools
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

import somebodys_helpers
from vaelib.models import mlp
from vaelib.objective import negative_elbo

BETA = 1.0
SIZES = (1, [2, {"three": 4}])
MEANS = torch.zeros(3)
NOISE = nn.Linear(2, 2, bias=False)
nn.init.zeros_(NOISE.weight)
x = 0  # has the name of an argument, and nothing to do with it


def scale(value=2, *, by=3):
    return value * by


halved = lambda value: value / 2


def times(factor):
    def decorate(function):
        @functools.wraps(function)
        def inner(*given):
            return factor * function(*given)

        return inner

    return decorate


@times(5)
def decorated(x):
    return x + 1


class Base(nn.Module):
    width = 6

    def forward(self, x):
        return x * self.width


class Layer(Base):
    @property
    def depth(self):
        return 7

    @staticmethod
    def made(x):
        return x - 8


class Weights(NamedTuple):
    first: float = 9.0


@dataclass(frozen=True)
class Weighted:
    weight: float = 10.0

    def __call__(self, terms, fraction):
        """A loss."""
        return negative_elbo(terms, self.weight)


def counted(x):
    global calls
    calls = 11
    return calls


def objective(terms, fraction):
    """What is minimised."""
    from somebodys_helpers import late

    shown = [f"{value!r:>{BETA}}" for value in SIZES]
    parts = scale() + halved(BETA) + decorated(MEANS) + NOISE(terms) + late(fraction)
    return parts + somebodys_helpers.scale(terms) + Layer()(terms) + Weights().first + Weighted()(terms, 12)
'''
HELPERS = "def scale(x):\n    return x * 13\n\n\ndef late(x):\n    return x * 14\n\n\ndef unused(x):\n    return x\n"
CHANGES = [
    ("BETA = 1.0", "BETA = 4.0"),
    ('{"three": 4}', '{"three": 5}'),
    ("torch.zeros(3)", "torch.ones(3)"),
    ("nn.init.zeros_", "nn.init.ones_"),
    ("value=2", "value=3"),
    ("by=3", "by=4"),
    ("value / 2", "value / 3"),
    ("@times(5)", "@times(6)"),
    ("return factor * function", "return factor + function"),
    ("width = 6", "width = 7"),
    ("x * self.width", "x + self.width"),
    ("return 7", "return 8"),
    ("x - 8", "x - 9"),
    ("first: float = 9.0", "first: float = 8.0"),
    ("negative_elbo(terms, self.weight)", "negative_elbo(terms, 0.0)"),
    ("Weighted()(terms, 12)", "Weighted()(terms, 13)"),
    ("x * 13", "x * 12"),
    ("x * 14", "x * 12"),
]
STATE = [  # of a global that a function reads, before and after
    ("global BETA\n    return BETA * x", "BETA = 1", "BETA = 2"),
    ("return f.beta * x", "f.beta = 1", "f.beta = 2"),
    ("return x", "f.__kwdefaults__ = {'by': 1}", "f.__kwdefaults__ = {'by': 2}"),
    ("return by['a'] * x", "by = collections.defaultdict(lambda: 1)", "by = collections.defaultdict(lambda: 2)"),
    ("return torch.rand(1, generator=g)", *(f"g = torch.Generator().manual_seed({seed})" for seed in (1, 2))),
    ("return g.a * x", "g = collections.OrderedDict()\ng.a = 1", "g = collections.OrderedDict()\ng.a = 2"),
    ("return g.a * x", "g = torch.zeros(1)\ng.a = 1", "g = torch.zeros(1)\ng.a = 2"),
    ("return g * x", "g = numpy.arange(2)[::-1]", "g = numpy.arange(2)"),
    ("return g.astype(float) * x", "g = numpy.array(['1'])", "g = numpy.array(['2'])"),
    ("return g.random() * x", "g = numpy.random.default_rng(1)", "g = numpy.random.default_rng(2)"),
    ("return g.read()", *(f"g = io.BytesIO(b'{value}')" for value in (1, 2))),
    ("return g.match(x)", *(f"g = re.compile('a' * 300 + '{value}')" for value in (1, 2))),
    ("return getattr(m, 'a') * x", "m = types.ModuleType('m')\nm.a = 1", "m = types.ModuleType('m')\nm.a = 2"),
    ("return m.__dict__['a'] * x", *(f"m = types.ModuleType('m')\nm.a = {value}" for value in (1, 2))),
    ("return g[0] * x", *(f"g = collections.deque([torch.tensor(1 + {value}e-6)])" for value in (1, 2))),
    ("return g['a'] * x", *(f"g = types.MappingProxyType({{'a': torch.tensor(1 + {value}e-6)}})" for value in (1, 2))),
    ("return sum(g) * x", *(f"g = {{'a': torch.tensor(1 + {value}e-6)}}.values()" for value in (1, 2))),
    ("return x[g]", *(f"g = slice(torch.tensor(1 + {value}e-6), None)" for value in (1, 2))),
    ("return g[0] * x", "g = memoryview(b'ab')[:1]", "g = memoryview(b'ab')[1:]"),
    ("return ms[0].a * x", *(f"m = types.ModuleType('m')\nm.a = {value}\nms = [m]" for value in (1, 2))),
]
NO_CHANGES = [
    ('"""What is minimised."""', '"""Otherwise told."""  # and with a comment'),
    ('"""A loss."""\n', "\n"),
    ("x = 0", "x = 1"),
    ("SIZES =", "# lines\n# are added\nSIZES ="),
    ("return x\n", "return 0\n"),
    ("def counted", "def recounted"),
    ("    return value * by", "    return (\n        value * by\n    )"),
]


@pytest.fixture
def somebodys(tmp_path, monkeypatch):
    """A function that writes these modules, and imports them as a new process would."""

    def imported(text=TEXT, helpers=HELPERS):
        for name, content in (("somebodys_helpers", helpers), ("somebodys", text)):
            path = tmp_path / f"{name}.py"
            path.write_text(content)
            linecache.clearcache()
            spec = importlib.util.spec_from_file_location(name, path)
            monkeypatch.setitem(sys.modules, name, module := importlib.util.module_from_spec(spec))
            exec(compile(content, path, "exec"), module.__dict__)
        return module

    return imported


@pytest.mark.parametrize(("old", "new"), CHANGES)
def test_the_meaning_changes_with_whatever_a_function_reads(somebodys, old, new):
    before = naming.meaning(somebodys().objective)
    assert naming.meaning(somebodys().objective) == before
    assert (TEXT + HELPERS).count(old) == 1
    assert naming.meaning(somebodys(TEXT.replace(old, new), HELPERS.replace(old, new)).objective) != before


@pytest.mark.parametrize(("old", "new"), NO_CHANGES)
def test_the_meaning_does_not_change_with_what_does_not_matter(somebodys, old, new):
    before = naming.meaning(somebodys().objective)
    assert old in TEXT + HELPERS
    assert naming.meaning(somebodys(TEXT.replace(old, new), HELPERS.replace(old, new)).objective) == before


def test_the_meaning_is_the_same_in_every_version_of_python(somebodys):
    assert naming.meaning(somebodys().objective) == "a18ffe1b141a9ff4"


def test_functions_of_packages_have_no_meaning_of_their_own():
    builder = partial(binarization.binarized, builder=partial(burda.build, means=torch.zeros(1, 7, 7)))
    aims = (objective.BetaELBO(2.0), objective.ImportanceWeighted(5), partial(CosineAnnealingLR, T_max=4))
    assert naming.meaning(builder, *aims, training.adam, None, models.build) == ""


def test_a_function_whose_text_is_not_what_runs_is_refused(somebodys, tmp_path):
    module = somebodys()
    before = naming.meaning(module.objective)
    (tmp_path / "somebodys.py").write_text("# what was edited elsewhere\n" + TEXT)
    linecache.clearcache()
    assert naming.meaning(module.objective) == before
    (tmp_path / "somebodys.py").write_text(TEXT.replace("late(fraction)", "late(terms)"))
    linecache.clearcache()
    with pytest.raises(ValueError, match=r"somebodys\.objective .*has changed since .*start Python again"):
        naming.meaning(module.objective)


def test_a_function_without_a_text_needs_a_name(tiny, tmp_path):
    exec("def own(terms, fraction): return terms.divergence - terms.reconstruction", space := {"__name__": "nowhere"})
    with pytest.raises(ValueError, match=r"the source code of nowhere.own is missing.*name=\.\.\."):
        runs.train(tiny, TrainConfig(1, 1), tmp_path, "cpu", objective=space["own"])
    run = runs.train(tiny, TrainConfig(1, 1), tmp_path, "cpu", objective=space["own"], name="of-my-own")
    assert run.folder.name == "tiny-k1-e1-s0-of-my-own"


THING: object = None


def _reads_a_global(terms, fraction):
    return THING


class _Factor(torch.nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor


@dataclass
class _Activated:
    activation: Callable = elu


@pytest.mark.parametrize(
    "make",
    [
        lambda value: _Activated(relu if value < 1 else elu),
        lambda value: Path("folder") / str(value),
        lambda value: torch.nn.HuberLoss(delta=value),
        _Factor,
        lambda value: torch.distributions.Normal(torch.full((2,), value), 1.0),
        lambda value: SimpleNamespace(weight=torch.tensor(1 + 1e-6 * value)),
    ],
)
def test_the_state_of_an_object_that_a_function_reads_counts_and_use_does_not_change_it(make, monkeypatch):
    def meaning(thing):
        monkeypatch.setitem(globals(), "THING", thing)
        return naming.meaning(_reads_a_global)

    thing = make(0.5)
    before = meaning(thing)
    str(thing)  # which a path keeps
    if isinstance(thing, torch.nn.Module):
        thing.eval()
    assert before == meaning(thing) == meaning(make(0.5)) != meaning(make(3.0))


def test_modules_that_import_each_other_have_a_meaning(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "mine_one.py").write_text(
        "import mine_two\n\ndef f(x):\n    return mine_two.mine_one.mine_two.by * x\n"
    )
    (tmp_path / "mine_two.py").write_text("import mine_one\n\nby = 2\n")
    one = importlib.import_module("mine_one")
    before = naming.meaning(one.f)
    one.mine_two.by = 3
    assert naming.meaning(one.f) != before


@pytest.mark.parametrize(("body", "before", "after"), STATE)
def test_the_state_that_a_function_reads_is_part_of_its_meaning(tmp_path, monkeypatch, body, before, after):
    def meaning(name, line):
        monkeypatch.syspath_prepend(tmp_path)
        (tmp_path / f"{name}.py").write_text(
            f"import collections, io, numpy, re, torch, types\ndef f(x):\n    {body}\n{line}\n"
        )
        monkeypatch.delitem(sys.modules, name, raising=False)  # of another parameter
        function = importlib.import_module(name).f
        function.__module__ = "state"
        return naming.meaning(function)

    assert meaning("state_one", before) == meaning("state_two", before) != meaning("state_three", after)


@singledispatch
def _dispatched(x):
    return x


@torch.compile(backend="eager")
def _compiled(x):
    return 2 * x


@pytest.mark.parametrize(
    "thing", [_dispatched, _compiled, logging.getLogger("mine").info], ids=["dispatched", "compiled", "log"]
)
def test_the_meaning_stays_after_a_call_of_what_keeps_a_cache(monkeypatch, thing):
    monkeypatch.setitem(globals(), "THING", thing)
    before = naming.meaning(_reads_a_global)
    thing(torch.ones(1))
    assert naming.meaning(_reads_a_global) == before


HIDDEN = [random.Random, np.random.default_rng, lambda: Image.new("L", (2, 2)), lambda: weakref.ref(_Factor)]
HIDDEN += [lambda: torch.jit.script(torch.nn.ReLU()), lambda: lambda: globals()]
HIDDEN += [lambda: torch.eye(2).to_sparse(), lambda: torch.zeros(2, device="meta")]


@pytest.mark.parametrize("make", HIDDEN)
def test_what_cannot_be_known_needs_a_name(monkeypatch, make):
    monkeypatch.setitem(globals(), "THING", make())
    with pytest.raises(ValueError, match=r"can't record .*(name=\.\.\.|make it dense)"):
        naming.meaning(_reads_a_global)


def test_a_module_that_python_m_runs_names_its_functions_as_an_import_does(monkeypatch):
    imported = naming.qualified_name(_same)
    monkeypatch.setattr(_same, "__module__", "__main__")
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", SimpleNamespace(name=__name__))
    assert naming.qualified_name(_same) == imported
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)  # a script or a notebook
    assert naming.qualified_name(_same) == "__main__._same"


def _same(image_shape, latent_dim):
    return models.mlp(image_shape, latent_dim)
