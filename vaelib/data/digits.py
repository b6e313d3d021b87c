"""scikit-learn's handwritten digits, enlarged to the size of MNIST's."""

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from .dataset import Dataset, Split

WEIGHT = 4 * 14**3  # bicubic weights times this are whole numbers, because positions are multiples of 1/14


def small() -> tuple[Tensor, Tensor, Tensor]:
    """Return the originals: pixels (1797, 1, 8, 8), from 0 to 16; labels (1797,); whether it's a test image (1797,).

    Every sixth image, from the first, is a test image.
    """
    from sklearn.datasets import load_digits  # takes a second to import

    pixels, classes = load_digits(return_X_y=True)
    images = torch.from_numpy(pixels).to(torch.uint8).reshape(-1, 1, 8, 8)
    return images, torch.from_numpy(classes).long(), torch.arange(len(images)) % 6 == 0


def load(name: str) -> Dataset:
    """Load 1,497 training and 300 test images, 1 x 28 x 28.

    The originals are 8 x 8 with values 0 to 16 (E. Alpaydin and C. Kaynak, UCI repository, 1998). They are enlarged by
    bicubic interpolation and clipped to the valid range.
    """
    pixels, labels, test = small()
    # In whole numbers, because rounding errors differ between processors and would decide values halfway between levels
    units = torch.eye(8, dtype=torch.float64).reshape(1, 8, 8, 1)
    weights = (interpolate(units, size=(28, 1), mode="bicubic")[0, :, :, 0] * WEIGHT).round_().long()
    large = weights.T @ pixels.long() @ weights
    images = (large.double() * 255 / (16 * WEIGHT**2)).clamp_(0, 255).round_().to(torch.uint8)
    train, test = (Split(images[rows], labels[rows]) for rows in (~test, test))
    return Dataset(name, train, test, tuple("0123456789"))
