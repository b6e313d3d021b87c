"""Progress bars: in a terminal tqdm's own, in a notebook one line of text that is written anew in its place."""

import io
import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm


def bar(iterable: Iterable | None = None, **options: Any) -> tqdm:
    """A progress bar as tqdm makes it, with tqdm's options; none at all where TQDM_DISABLE is set."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return (_Line if hasattr(shell, "kernel") else tqdm)(iterable, **options)


class _Line(tqdm):
    """A bar that is an output of its cell: on no red ground, and a notebook that is saved holds its last state alone.

    tqdm's own bars for notebooks are widgets, which need a package more, and are gone when the notebook is reopened.
    """

    def __init__(self, iterable: Iterable | None, **options: Any):
        self.output: Any = None
        super().__init__(iterable, file=io.StringIO(), ascii=False, mininterval=0.5, **options)

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        from IPython.display import DisplayHandle

        line = {"text/plain": str(self)}
        if self.output is None:
            self.output = DisplayHandle()
            self.output.display(line, raw=True)
        else:
            self.output.update(line, raw=True)
