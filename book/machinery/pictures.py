"""The book's pictures: with 256 colours, which take half of the space or less, and where images stand in them."""

import base64
import io
from pathlib import Path

import nbformat
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from vaelib import files

from . import notebooks


def shrink(notebook: Path) -> None:
    """Reduce the pictures in an executed notebook to 256 colours each."""
    page = notebooks.read(notebook)
    for output in (each for cell in page.cells for each in cell.get("outputs", [])):
        if png := output.get("data", {}).get("image/png"):
            output["data"]["image/png"] = base64.b64encode(stored(png, notebook)).decode()
    files.write(notebook, nbformat.writes(page) + "\n")


def stored(png: str, notebook: Path) -> bytes:
    """Return a notebook's picture as a small file. Raises ValueError, with the notebook's name, if it's damaged."""
    try:
        return small(io.BytesIO(base64.b64decode(png)))
    except (ValueError, OSError, SyntaxError) as error:  # Pillow raises SyntaxError for a broken PNG file
        raise ValueError(f"{notebook} contains a damaged picture ({error}); execute it again") from error


def small(picture: io.BytesIO) -> bytes:
    """Return a PNG file with 256 colours, or the same file if it doesn't have more."""
    with Image.open(picture) as image:  # keeps each colour close: median cut leaves specks on faces
        if image.mode == "P":
            return picture.getvalue()
        few = image.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE)
    few.save(content := io.BytesIO(), "png", optimize=True)
    return content.getvalue()


def drawn(figure: Figure) -> bytes:
    """Return a figure as a PNG file with 256 colours."""
    figure.savefig(content := io.BytesIO(), format="png", bbox_inches="tight")
    return small(content)


def panes(shades: np.ndarray) -> list[tuple[int, int, int, int]]:
    """Return the top, left, bottom and right edge, in pixels, of each image in a figure with a white ground.

    We cut the figure along its white gaps until no part has one. An image fills its part; letters and curves don't.

    Parameters
    ----------
    shades : uint8 of shape (height, width), 255 is white
    """
    found, parts = [], [(0, 0, *shades.shape)]
    while parts:
        top, left, bottom, right = part = parts.pop()
        ink = shades[top:bottom, left:right] < 250
        rows, columns = _runs(np.any(ink, axis=1)), _runs(np.any(ink, axis=0))
        cut = [(top + up, left + start, top + down, left + end) for up, down in rows for start, end in columns]
        if cut != [part]:
            parts += cut
        elif min(ink.shape) >= 20 and ink.mean() > 0.8:
            found.append(part)
    return found


def _runs(ink: np.ndarray) -> list[tuple[int, int]]:
    """Return where runs of True begin and end, which gaps of more than 4 pixels separate."""
    places = np.flatnonzero(ink)
    runs = np.split(places, np.flatnonzero(np.diff(places) > 4) + 1)
    return [(int(run[0]), int(run[-1]) + 1) for run in runs if run.size]
