"""The measures of the pictures that the paper's authors published, on tiles made here."""

import hashlib
import math

import matplotlib.pyplot as plt
import pytest
import torch
from PIL import Image

from book.experiments import authors, verdicts

FACE = (3, 64, 48)


@pytest.fixture
def images():
    return torch.randint(256, (6, *FACE), generator=torch.Generator().manual_seed(0)).float() / 255


def drawn_by_matplotlib(images, path, inches):
    """Two rows of tiles without margins, as the authors' scripts draw them."""
    figure, axes = plt.subplots(2, 3, figsize=inches, dpi=100)
    for ax, image in zip(axes.flat, images, strict=True):
        ax.imshow(image.permute(1, 2, 0).numpy())
        ax.axis("off")
    figure.subplots_adjust(0, 0, 1, 1, 0, 0)
    figure.savefig(path)
    plt.close(figure)


@pytest.mark.parametrize(("inches", "steps"), [((2.25, 2), 2), ((9, 8), 0.01)], ids=["smooth", "nearest"])
def test_the_enlargement_of_matplotlib_is_undone_up_to_rounding(images, tmp_path, monkeypatch, inches, steps):
    drawn_by_matplotlib(images, tmp_path / "tiles.png", inches)
    checksum = hashlib.sha256((tmp_path / "tiles.png").read_bytes()).hexdigest()
    (tmp_path / "sums").write_text(f"{checksum}  tiles.png\n", "utf-8")
    monkeypatch.setattr(authors, "CHECKSUMS", tmp_path / "sums")
    found, error = authors.tiles(authors.read(tmp_path, "tiles.png"), 2, 3, FACE[1:])
    assert (255 * (found - images)).abs().max() <= steps
    assert error.max() < authors.EXACT


def test_a_tile_of_another_geometry_is_recognised_by_its_round_trip(images):
    shifted = torch.nn.functional.interpolate(images[:1], (100, 75), mode="bilinear")
    _, error = authors.tiles((255 * shifted[0]).byte(), 1, 1, FACE[1:])
    assert error.item() > authors.EXACT


@pytest.mark.parametrize(("change", "says"), [(None, "no such file"), ("another", "expected SHA-256")])
def test_a_missing_or_changed_file_is_refused_by_name_and_checksum(tmp_path, change, says):
    name = "models/celeba_vae_dims/96d_generated_images.png"
    if change:
        (tmp_path / name).parent.mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    with pytest.raises(ValueError, match=says) as caught:
        authors.read(tmp_path, name)
    assert name in str(caught.value)


def test_a_bootstrap_interval_has_the_width_of_the_standard_error():
    values = torch.randn(400, generator=torch.Generator().manual_seed(0))
    mean, low, high = authors.interval(values)
    assert mean == pytest.approx(values.mean().item(), abs=1e-4)
    assert high - low == pytest.approx(2 * 1.96 * values.std().item() / 20, rel=0.1)


def test_a_perfect_reconstruction_has_no_error_and_full_coherence(images):
    rows = authors.reconstructions(images, images, images.mean(0))
    found = {name: statistic(rows).item() for name, statistic in authors.RECONSTRUCTIONS.items()}
    assert found["squared error"] == 0
    assert found["variance explained"] == 1
    assert found["fine coherence"] == pytest.approx(1)


def test_a_broad_wave_that_is_cut_off_at_the_edge_has_no_fine_detail():
    slope = torch.linspace(0, 1, 64)[:, None].expand(1, *FACE)
    fine = torch.rand(1, *FACE, generator=torch.Generator().manual_seed(0))
    six, twelve = (torch.sin(torch.arange(64.0) * math.tau / n)[:, None].expand(1, *FACE) for n in (6, 12))
    power = [verdicts.waves(each).abs().square().sum() for each in (slope, fine, six, twelve)]
    assert power[0] < 1e-3 * power[1] < power[1] < power[2] and power[3] < 0.01 * power[2]


def test_samples_measure_brightness_darkness_and_duplicates(images):
    found = authors.samples(torch.cat([images[:1], images[:1], torch.zeros(2, *FACE)]), images)
    assert found["nearest sample"][0] == 0
    assert found["nearly black"][0] == 0.5
    assert found["brightness"][0] == pytest.approx(images[0].mean().item() / 2, abs=1e-4)


def test_a_walk_that_changes_only_the_mouth_changes_the_bottom_third():
    walk = torch.full((2, 3, *FACE), 0.5)
    walk[:, 2, :, 50:] = 1
    found = authors.walks(walk)
    assert found["bottom"][0] == 1
    assert found["brightness"][0] == pytest.approx(0.5 * 14 / 64, abs=1e-5)


def test_digits_are_stretched_from_black_to_white():
    grey = 0.25 + torch.eye(28).expand(3, 1, 28, 28) / 4
    assert authors.digits(grey)["greyness"] == [0, 0, 0]
    assert authors.digits(grey)["brightness"][0] == pytest.approx(1 / 28, abs=1e-4)


def test_the_scripts_model_has_twice_the_channels_and_no_norm_in_the_fourth_block():
    model = authors.scripts_model(FACE, 4)
    norms = [each.num_features for each in model.modules() if isinstance(each, torch.nn.BatchNorm2d)]
    assert norms == [64, 128, 256]
    assert model.sample(2, seed=0).shape == (2, *FACE)
