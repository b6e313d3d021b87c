"""Figures of the book. Functions take tensors or numbers, and return a matplotlib figure."""

import math
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torchvision.utils import make_grid

STYLE = {
    "figure.dpi": 144,
    "figure.constrained_layout.use": True,
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}
WIDTH = 7.0  # inches, the width of a page


def _figure(count: int = 1, columns: int = 1, height: float = 2.6, **options) -> tuple[Figure, list[Axes]]:
    """Make axes in rows of this height, with so many columns."""
    rows = -(-count // columns)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(rows, columns, figsize=(WIDTH, rows * height), squeeze=False, **options)
    plt.close(figure)  # a notebook shows the returned figure; otherwise pyplot would show it again
    for unused in axes.flat[count:]:
        unused.set_axis_off()
    return figure, list(axes.flat[:count])


def _show(axes: Axes, images: Tensor, columns: int) -> None:
    """Show images (N, C, H, W), uint8 or in [0, 1], on a white grid."""
    if images.dtype == torch.uint8:
        images = images / 255
    axes.imshow(make_grid(images.cpu(), columns, padding=1, pad_value=1).permute(1, 2, 0), interpolation="nearest")
    axes.set_axis_off()


def panels(images: Mapping[str, Tensor], columns: int, panels_in_row: int = 3) -> Figure:
    """Draw grids of images next to each other, each with its title.

    Parameters
    ----------
    images : from titles to tensors of shape (N, C, H, W), values in [0, 1] or uint8
    columns : of each grid
    panels_in_row : number of grids in a row
    """
    count, _, height, width = next(iter(images.values())).shape
    aspect = (-(-count // columns) * height) / (columns * width)
    figure, axes = _figure(len(images), panels_in_row, WIDTH / panels_in_row * aspect + 0.2)
    for ax, (title, batch) in zip(axes, images.items(), strict=True):
        ax.set_title(title, fontsize=9)
        _show(ax, batch, columns)
    return figure


def plane(codes: Tensor, labels: Tensor, decoded: Tensor, limit: float, title: str) -> Figure:
    """Draw the latent plane twice: with the codes of images, and with decoded images.

    Parameters
    ----------
    codes, labels : of shape (N, 2) and (N,); each code is drawn as its label
    decoded : images (n², C, H, W) from the same part of the plane, row by row from the top left
    limit : of the plane, in each direction
    """
    figure, (left, right) = _figure(2, 2, 4.1)
    for (x, y), label in zip(codes.tolist(), labels.tolist(), strict=True):
        left.text(x, y, label, color=f"C{label}", fontsize=7, ha="center", va="center", clip_on=True)
    left.set(xlim=(-limit, limit), ylim=(-limit, limit), box_aspect=1)
    left.set_title("where the encoder puts test digits", fontsize=9)
    right.set_title("what the decoder paints there", fontsize=9)
    _show(right, decoded, math.isqrt(len(decoded)))
    figure.suptitle(title, fontsize=9)
    return figure


def densities(columns: int) -> tuple[Figure, list[Axes]]:
    """Make empty axes next to each other, low and wide."""
    return _figure(columns, columns, 2.2)


def rows(images: Mapping[str, Tensor]) -> Figure:
    """Draw rows of images, such as originals and reconstructions, each row with its name.

    Parameters
    ----------
    images : from names to tensors of shape (N, C, H, W), all with the same N
    """
    count, _, height, width = next(iter(images.values())).shape
    figure, axes = _figure(len(images), 1, WIDTH / count * height / width + 0.22)
    for ax, (name, batch) in zip(axes, images.items(), strict=True):
        ax.set_title(name, loc="left", fontsize=9)
        _show(ax, batch, count)
    return figure


def _curves(panels: Mapping[str, tuple[Sequence[Mapping[str, float]], str]], **options) -> Figure:
    """Draw one panel per title, with one metric over the epochs on train (dashed) and test."""
    figure, axes = _figure(len(panels), len(panels), **options)
    for ax, (title, (metrics, key)) in zip(axes, panels.items(), strict=True):
        epochs = [line["epoch"] for line in metrics]
        for split, style in (("train", "--"), ("test", "-")):
            ax.plot(epochs, [line[f"{split}_{key}"] for line in metrics], style, label=split)
        ax.set_title(title, fontsize=9)
        ax.set_xlabel("epoch")
        ax.xaxis.get_major_locator().set_params(integer=True)
    axes[0].set_ylabel("nats per image")
    axes[0].legend()
    return figure


def training(metrics: Sequence[Mapping[str, float]]) -> Figure:
    """Plot ELBO, reconstruction term and KL over the epochs, on train and test.

    Parameters
    ----------
    metrics : one mapping per epoch, as `training.fit` returns them
    """
    titles = {"elbo": "ELBO", "reconstruction": "reconstruction term", "kl": "KL"}
    return _curves({title: (metrics, key) for key, title in titles.items()})


def over_dimensions(latent_dims: Sequence[int], values: Mapping[str, Sequence[Sequence[float]]]) -> Figure:
    """Plot values against the latent dimension, with a point per seed and a line through the means.

    Parameters
    ----------
    latent_dims : the K of each column
    values : from titles to values[K][seed], one panel per title
    """
    figure, axes = _figure(len(values), 3, 2.1)
    for ax, (title, columns) in zip(axes, values.items(), strict=True):
        means = [sum(column) / len(column) for column in columns]
        ax.plot(range(len(latent_dims)), means, color="C0", alpha=0.6)
        for position, column in enumerate(columns):
            ax.plot([position] * len(column), column, "o", color="C0", markersize=3)
        ax.set_xticks(range(len(latent_dims)), latent_dims)
        ax.set_title(title, fontsize=9)
        ax.set_xlabel("K")
    return figure


def histories(metrics: Mapping[str, Sequence[Mapping[str, float]]], key: str = "elbo") -> Figure:
    """Plot a metric over the epochs on train and test, one panel per run, all on the same scale.

    Parameters
    ----------
    metrics : from titles to the values that `training.fit` returns
    key : "elbo", "reconstruction" or "kl"
    """
    return _curves({title: (lines, key) for title, lines in metrics.items()}, sharey=True)


def codes(means: Tensor, labels: Tensor, names: Sequence[str]) -> Figure:
    """Plot codes in the plane, coloured by class: unchanged, and with both axes as quantiles of N(0, 1).

    Parameters
    ----------
    means : Tensor of shape (N, 2)
    labels : Tensor of shape (N,), indices into names
    names : of the classes

    Raises
    ------
    ValueError
        If there are more than ten classes, because there are ten colours.
    """
    if len(names) > 10:
        raise ValueError(f"expected ten classes at most, as there are ten colours, not {len(names)}; draw some of them")
    figure, axes = _figure(2, 2, 3.2)
    for ax, points in zip(axes, (means, torch.special.ndtr(means)), strict=True):
        for label in range(len(names)):
            ax.scatter(*points[labels == label].T, s=3, alpha=0.5, linewidths=0, color=f"C{label}")
        ax.set(xlabel="$z_1$", ylabel="$z_2$", box_aspect=1)
    ticks = torch.arange(-2.0, 3)
    for axis in (axes[1].xaxis, axes[1].yaxis):
        axis.set_ticks(torch.special.ndtr(ticks), [f"{tick:.0f}" for tick in ticks])
    shown = [f" {name}" if name.startswith("_") else name for name in names]  # else matplotlib leaves it out
    for handle in figure.legend(axes[0].collections, shown, loc="outside right center", markerscale=3).legend_handles:
        handle.set_alpha(1)
    return figure


def dots(names: Sequence[str], values: Mapping[str, Tensor], label: str, errors: Mapping[str, Tensor] = {}) -> Figure:
    """Draw a line per name and on it a dot per series, such as an attribute's accuracy and the baseline accuracy.

    Parameters
    ----------
    names : of the N lines, from top to bottom
    values : from the series' names to tensors of shape (N,)
    label : of the axis
    errors : from series' names to half the length of their error bars, tensors of shape (N,); series may be missing
    """
    figure, (axes,) = _figure(height=0.6 + 0.16 * len(names))
    lines = range(len(names))
    for number, (name, series) in enumerate(values.items()):
        axes.errorbar(series, lines, xerr=errors.get(name), fmt="os^D"[number], markersize=4, label=name)
    axes.set_yticks(lines, [name.replace("_", " ") for name in names])
    axes.set(xlabel=label, ylim=(len(names) - 0.5, -0.5))
    axes.grid(axis="y", alpha=0.3)
    figure.legend(loc="outside upper center", ncols=len(values))
    return figure


def lines(x: Sequence[float], curves: Mapping[str, Sequence[float]], xlabel: str, ylabel: str, **axes) -> Figure:
    """Plot curves over the same x in one panel. Further arguments go to matplotlib's `Axes.set`."""
    figure, (panel,) = _figure()
    for name, curve in curves.items():
        panel.plot(x, curve, "o-", markersize=3, label=name)
    panel.set(xlabel=xlabel, ylabel=ylabel, **axes)
    panel.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def laws(panel: Axes, curves: Mapping[str, Sequence[tuple[float, ...]]]) -> None:
    """Draw closed forms as lines and measurements as points, on logarithmic axes, with a name at each line's end.

    Parameters
    ----------
    panel : to draw in
    curves : from names to rows of x, closed form and measurement; further values in a row are ignored
    """
    ticks = sorted({row[0] for rows in curves.values() for row in rows})
    for color, (name, rows) in enumerate(curves.items()):
        x, form, measured, *_ = zip(*rows, strict=True)
        panel.loglog(x, form, color=f"C{color}")
        panel.loglog(x, measured, "o", color=f"C{color}", markersize=4)
        panel.text(x[-1], form[-1], f"   {name}", color=f"C{color}", va="center")
    panel.set_xticks(ticks, ticks)
    panel.minorticks_off()


def matrix(values: Tensor, rows: Sequence[str], columns: Sequence[str], label: str, height: float = 4) -> Figure:
    """Draw a table of numbers as colours, with white at zero.

    Parameters
    ----------
    values : Tensor of shape (len(rows), len(columns))
    rows, columns : names
    label : of the colours
    height : in inches
    """
    figure, (axes,) = _figure(height=height)
    limit = values.abs().max()
    image = axes.imshow(values, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto")
    axes.set_xticks(range(len(columns)), [name.replace("_", " ") for name in columns], rotation=90)
    axes.set_yticks(range(len(rows)), [name.replace("_", " ") for name in rows])
    figure.colorbar(image, label=label)
    return figure
