"""Pictures with 256 colours, which take half of the space or less."""

import base64
import io
from pathlib import Path

import nbformat
from matplotlib.figure import Figure
from PIL import Image

from vaelib import files


def shrink(notebook: Path) -> None:
    """Reduce the pictures in an executed notebook to 256 colours each."""
    page = files.read_notebook(notebook)
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
