"""Pictures in half of the space: what the book stores, it stores with 256 colours."""

import base64
import io
from pathlib import Path

import nbformat
from matplotlib.figure import Figure
from PIL import Image

from vaelib import files


def shrink(notebook: Path) -> None:
    """Store the pictures in an executed notebook with 256 colours each, which takes half of the space or less."""
    page = files.read_notebook(notebook)
    for output in (each for cell in page.cells for each in cell.get("outputs", [])):
        if png := output.get("data", {}).get("image/png"):
            output["data"]["image/png"] = base64.b64encode(stored(png, notebook)).decode()
    files.write(notebook, nbformat.writes(page) + "\n")


def stored(png: str, notebook: Path) -> bytes:
    """A picture of a notebook as a small file. Raises ValueError, with the notebook's name, if it is damaged."""
    try:
        return small(io.BytesIO(base64.b64decode(png)))
    except (ValueError, OSError, SyntaxError) as error:  # the last is Pillow's, of a PNG file that is broken
        raise ValueError(f"{notebook} holds a damaged picture ({error}); execute it again") from error


def small(picture: io.BytesIO) -> bytes:
    """A PNG file of 256 colours; of one that has no more already, the same file."""
    with Image.open(picture) as image:  # the method that is never far off: median cut leaves specks on faces
        if image.mode == "P":
            return picture.getvalue()
        few = image.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE)
    few.save(content := io.BytesIO(), "png", optimize=True)
    return content.getvalue()


def drawn(figure: Figure) -> bytes:
    """A figure as such a file."""
    figure.savefig(content := io.BytesIO(), format="png", bbox_inches="tight")
    return small(content)
