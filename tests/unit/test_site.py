"""What the book's extension for Sphinx makes of numbers and figures."""

import numpy as np
import pytest
from docutils import nodes
from docutils.utils import new_document

from book.machinery import pictures, sphinx_site


@pytest.mark.parametrize(
    ("written", "printed"),
    [
        ("With K = 2, -3 and 2.5e+3", "With K_=_2, −3 and 2.5 × 10³"),
        ("a 32 x 32 x 24 map", "a 32_×_32_×_24 map"),
        ("784 - 512 - K", "784_–_512_–_K"),
        ("-ELBO and -log p(x)", "−ELBO and −log p(x)"),
    ],
)
def test_numbers_are_set_as_in_print(written, printed):
    document = new_document("page")
    document += nodes.paragraph(text=written)
    sphinx_site.set_numbers(None, document, "page")
    assert document.astext() == printed.replace("_", "\u00a0")


def test_names_of_attributes_have_spaces_also_within_a_sentence():
    document = new_document("page")
    document += nodes.paragraph(
        text="even if it's high (Wearing_Hat: 0.9), 5_o_Clock_Shadow, but MY_NAME and the_other stay"
    )
    sphinx_site.set_numbers(None, document, "page")
    assert document.astext() == "even if it's high (Wearing Hat: 0.9), 5 o Clock Shadow, but MY_NAME and the_other stay"


def test_decimal_points_of_a_column_stand_in_line():
    document, body = new_document("page"), nodes.tbody()
    document += nodes.table("", body)
    for text in ("head", "-143.7", "2", "", "5248.3 ± 0.6"):
        body += nodes.row("", nodes.entry("", nodes.paragraph(text=text)))
    sphinx_site.set_numbers(None, document, "page")
    _, *cells = [row.astext() for row in body]
    as_wide = str.maketrans("\u2007\u2008\u00a0", "0. ")
    assert [cell.translate(as_wide) for cell in cells] == ["−143.7 0 0.0", "2.0 0 0.0", "", "5248.3 ± 0.6"]


def test_images_in_a_figure_are_found_and_letters_and_curves_are_not():
    figure = np.full((120, 200), 255, np.uint8)
    figure[5:15:2, 10:60] = 0  # a title
    figure[20:60, 10:90] = 90
    figure[40, 10:90] = 255  # the gap between two tiles
    figure[20:60, 110:190] = 90
    figure[np.arange(70, 110), np.arange(20, 60)] = 0  # a curve
    assert sorted(pictures.panes(figure)) == [(20, 10, 60, 90), (20, 110, 60, 190)]
