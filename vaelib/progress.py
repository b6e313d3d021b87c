"""Progress bars, as lines of text in terminals and notebooks. Set TQDM_DISABLE to hide them."""

from contextlib import suppress
from typing import Any

from tqdm import tqdm


class bar(tqdm):
    """tqdm's bar with its options. If it can't be shown any more (the terminal is gone), work continues without it."""

    def display(self, *arguments: Any, **options: Any) -> Any:
        """Show the bar."""
        try:
            return super().display(*arguments, **options)
        except (OSError, AttributeError):  # tqdm raises the latter if sys.stderr is None
            self.disable = True

    def close(self) -> None:
        """Leave the bar as it is now."""
        with suppress(OSError):
            super().close()
