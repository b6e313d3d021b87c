"""Drawn faces: a data set without a download, whose every image is known by the numbers it was drawn from."""

from math import inf
from pathlib import Path

import torch
from torch import Tensor

from .dataset import Dataset, Split

HEIGHT, WIDTH = 64, 48
CHUNK = 50  # faces drawn at once: few enough for a processor's cache; it changes no pixel

FACTORS = (
    "light_direction",  # from the left of the image (-) to its right (+)
    "light_level",
    "skin_tone",  # dark to pale
    "hair_colour",  # black to blond
    "hair_length",  # above the ears to below the shoulders
    "bangs",  # from a bare forehead to hair down to the brows
    "glasses",  # there or not, see ATTRIBUTES
    "smile",  # the corners of the mouth, from down to up
    "mouth_opening",  # closed below -0.5
    "masculinity",  # jaw, brows, lips and the shadow of a beard
    "yaw",  # looking to the left of the image (-) or to its right (+)
    "tilt",
    "background_hue",  # blue, grey, brown
    "background_level",  # dark to bright
    "face_width",
)

# An attribute holds where low < factor <= high. CelebA's names where it has the attribute; left is the image's.
ATTRIBUTES = {
    "Bangs": ("bangs", 0.4, inf),
    "Black_Hair": ("hair_colour", -inf, -0.5),
    "Blond_Hair": ("hair_colour", 0.6, inf),
    "Brown_Hair": ("hair_colour", -0.5, 0.6),
    "Bright_Background": ("background_level", 0.0, inf),
    "Bright_Light": ("light_level", 0.0, inf),
    "Eyeglasses": ("glasses", 0.6, inf),
    "Light_From_Left": ("light_direction", -inf, 0.0),
    "Long_Hair": ("hair_length", 0.2, inf),
    "Looking_Left": ("yaw", -inf, 0.0),
    "Male": ("masculinity", 0.0, inf),
    "Mouth_Slightly_Open": ("mouth_opening", 0.0, inf),
    "Pale_Skin": ("skin_tone", 0.7, inf),
    "Smiling": ("smile", 0.2, inf),
    "Wide_Face": ("face_width", 0.5, inf),
}

SKIN = ((0.38, 0.25, 0.18), (0.62, 0.43, 0.31), (0.85, 0.65, 0.52), (0.92, 0.78, 0.69))
HAIR = ((0.07, 0.06, 0.07), (0.17, 0.11, 0.08), (0.44, 0.28, 0.16), (0.80, 0.65, 0.40))
BACKGROUND = ((0.32, 0.48, 0.66), (0.46, 0.58, 0.62), (0.62, 0.60, 0.54), (0.70, 0.48, 0.36))
CLOTHES, WHITE, INK = (0.23, 0.27, 0.38), (0.94, 0.93, 0.91), (0.10, 0.07, 0.07)


def load(folder: Path) -> Dataset:
    """4,000 training and 1,000 test images, 3 x 64 x 48, drawn here; nothing is read from the folder.

    The labels are the ATTRIBUTES, one column each.
    """
    splits = []
    for count, seed in ((4000, 0), (1000, 1)):
        images, factors = generate(count, seed)
        splits.append(Split(images, attributes(factors)))
    return Dataset("faces", *splits, names=tuple(ATTRIBUTES))


def generate(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Faces, and the factors that they were drawn from.

    Returns
    -------
    images : uint8 Tensor of shape (count, 3, 64, 48)
    factors : float32 Tensor of shape (count, len(FACTORS)), independent standard normals, clipped to [-2.5, 2.5]

    Raises
    ------
    ValueError
        If the count is no positive integer, or the seed no integer from 0 to 2^63 - 1.
    """
    if not _is_integer(count) or count < 1:
        raise ValueError(f"count must be a positive integer, not {count!r}")
    if not _is_integer(seed) or not 0 <= seed < 2**63:
        raise ValueError(f"seed must be an integer from 0 to 2^63 - 1, not {seed!r}")
    generator = torch.Generator().manual_seed(seed)
    # Drawn in double precision: what processors differ in is lost when it is rounded to single.
    factors = torch.randn(count, len(FACTORS), generator=generator, dtype=torch.float64).clamp_(-2.5, 2.5).float()
    return render(factors), factors


def attributes(factors: Tensor) -> Tensor:
    """The ATTRIBUTES of faces with these factors: (N, len(FACTORS)) to bool (N, len(ATTRIBUTES))."""
    columns = [(factors[:, FACTORS.index(name)], low, high) for name, low, high in ATTRIBUTES.values()]
    return torch.stack([(low < column) & (column <= high) for column, low, high in columns], 1)


def render(factors: Tensor) -> Tensor:
    """Draw faces: float Tensor (N, len(FACTORS)), meant to lie in [-2.5, 2.5], to uint8 (N, 3, 64, 48).

    Raises
    ------
    ValueError
        If the factors are no floating-point tensor of that shape with N > 0.
    """
    if not factors.is_floating_point() or factors.ndim != 2 or factors.shape[1] != len(FACTORS) or len(factors) == 0:
        raise ValueError(
            f"factors must be a floating-point tensor of shape (N, {len(FACTORS)}) with N > 0, "
            f"not {factors.dtype} of shape {tuple(factors.shape)}"
        )
    return torch.cat([_draw(part) for part in factors.float().split(CHUNK)])


def _draw(factors: Tensor) -> Tensor:
    """Paint from back to front. Lengths are in pixels; u and v are the head's own axes, from between the eyes.

    Only sums, products, quotients, square roots and comparisons, which every processor rounds alike: no exponentials
    or sines, so the images, and with them the data set's fingerprint, are the same everywhere.
    """
    f = dict(zip(FACTORS, factors[:, :, None, None].unbind(1), strict=True))  # (N, 1, 1) each
    x = torch.arange(WIDTH, dtype=torch.float32)[None, None, :] - 23.5
    y = torch.arange(HEIGHT, dtype=torch.float32)[None, :, None] - 31
    tilt, turn, male = 0.045 * f["tilt"], 1.6 * f["yaw"], f["masculinity"]
    u, v = x + tilt * (y - 20), y - tilt * x
    width = 13.2 + f["face_width"] + 0.25 * male
    skin, hair = _palette(f["skin_tone"], SKIN), _palette(f["hair_colour"], HAIR)
    across = ((x + 0 * y) / 22).clamp(-1, 1) * f["light_direction"]  # of the light, on what is flat

    # Background, brighter in the middle
    room = _palette(f["background_hue"], BACKGROUND) * (1 + 0.22 * f["background_level"])[:, None]
    image = room * (1.06 - 0.00016 * (x * x + y * y) + 0.13 * across)[:, None]

    # Hair behind the head, down to `end`; the longer, the fuller
    end, full = 12.5 + 9 * f["hair_length"], (2.4 + 0.6 * f["hair_length"]).clamp(1.4, 3.4)
    uu, vv = (u / (width + full)).square().clamp(max=2), (v / (21.5 + full)).square().clamp(max=2)
    dome = ((uu + vv - 0.3 * uu * vv).sqrt() - 1) * (width + full)
    sides = u.abs() - (width + full) - 0.05 * v.clamp(0, 30)
    hair_mask = _soft(torch.where(v < 0, dome, sides)) * _soft(v - end + 0.018 * u * u, 5)
    strands = 1 + 0.06 * _wave(u * 0.29 + 0.04 * v) + 0.05 * _wave(u * 0.43 - 0.03 * v)
    gloss = (1 - ((v + 17 - 0.02 * u * u) / 5).square()).clamp(0) * (0.20 + 0.15 * across)
    locks = hair * (strands * (1 + 0.25 * across) + gloss)[:, None]
    image = _over(image, hair_mask, locks * 0.72)

    # Shoulders and neck, in the shadow of the chin
    cloth = torch.tensor(CLOTHES)[None, :, None, None] * (1 + 0.25 * across)[:, None]
    image = _over(image, _soft(_ellipse(x, y - 40, 23 + 0.7 * male, 17)), cloth)
    nape = u.abs() - (6.3 + 0.5 * male) - 0.012 * (v - 14).clamp(0).square()
    under = 0.62 + 0.022 * (v - 16).clamp(0, 14)
    neck = _soft(nape) * _soft(10 - v) * _soft(_ellipse(x, y - 21, 11, 9), 2)
    image = _over(image, neck, skin * (under * (1 + 0.25 * across))[:, None])

    # The head: ears, and a rounded shape whose lower half is squarer or more pointed
    h = u - 0.35 * turn
    across2 = (h / width).clamp(-1, 1)
    for side in (-1, 1):
        ear = _soft(_ellipse(h - side * width, v - 2, 2.2, 4.4))
        image = _over(image, ear, skin * (0.82 + 0.2 * side * f["light_direction"] * 0.6).clamp(0.4)[:, None])
    uu, vv = (h / width).square().clamp(max=2), (v / torch.where(v < 0, 21.5, 20 + 0.4 * male)).square().clamp(max=2)
    square = torch.where(v < 0, torch.zeros(()), (0.18 + 0.22 * male).clamp(-0.4, 0.7))
    radius = (uu + vv - square * uu * vv).clamp(0).sqrt()
    head = _soft((radius - 1) * width)
    depth = (1 - radius.square()).clamp(0).sqrt()  # how far the skin faces the viewer
    light = 0.80 + 0.27 * depth + 0.24 * f["light_direction"] * across2 * (1.2 - 0.5 * depth)
    face = skin * light.clamp(0.25)[:, None]
    beard = _blob(h, v - 17, width + 1, 13) * (male * 0.13).clamp(0)
    face = face * (1 - beard[:, None] * torch.tensor((0.9, 0.8, 0.65))[None, :, None, None])
    image = _over(image, head, face)

    # Cheeks and the hollows of the eyes; w is measured from the turned middle of the face
    w = u - turn
    smile = f["smile"] + 0.3  # a face at rest looks friendly
    for side in (-1, 1):
        cheek = head * _blob(w - side * 7.8, v - 7 + 0.25 * smile, 6, 5)
        image = _over(image, 0.22 * cheek, skin * torch.tensor((1.08, 0.72, 0.68))[None, :, None, None])
        eye = side * (6.1 - 0.25 * (side * turn).clamp(0))
        e = w - eye
        image = _shade(image, 0.25 * head * _blob(e, v + 2, 5.5, 5.5))
        # White, iris, pupil, a glint, the lid's line
        lids = (e / 3.5).square()
        opening = torch.maximum(-0.1 - v - 1.9 * (1 - lids), v - 0.1 - 1.3 * (1 - lids))
        white = _soft(opening) * _soft(e.abs() - 3.5)
        image = _over(image, white, torch.tensor(WHITE)[None, :, None, None] * (0.92 + 0.08 * across)[:, None])
        gaze = e - 0.25 * turn
        image = _over(image, white * _soft(_ellipse(gaze, v, 1.75, 1.75)), torch.tensor((0.30, 0.22, 0.16)))
        image = _over(image, white * _soft(_ellipse(gaze, v, 0.8, 0.8)), torch.tensor(INK))
        image = _over(image, 0.8 * _soft(_ellipse(gaze - 0.7, v + 0.8, 0.5, 0.5)), torch.tensor((1.0, 1.0, 1.0)))
        lid = _soft((v + 0.3 + 1.9 * (1 - lids)).abs() - 0.45) * _soft(e.abs() - 3.8)
        image = _over(image, (0.75 - 0.08 * male) * lid, torch.tensor(INK))
        # The brow, thicker and lower with masculinity
        arch = v + 5.9 - 0.35 * male - 0.055 * (e + side * 0.4).square() + 0.10 * side * e
        brow = _soft(arch.abs() - (0.75 + 0.28 * male).clamp(0.4)) * _soft(e.abs() - 4.4, 2)
        image = _over(image, (0.75 + 0.1 * male) * brow, hair * 0.55 + 0.05)

    # Nose: a light ridge, a shadow on the side away from the light, the tip and the nostrils
    n = u - 1.5 * turn
    ridge = _blob(n, v - 2.5, 1.8, 8)
    image = _shade(image, -0.10 * ridge)
    for side in (-1, 1):
        dark = (0.14 - 0.07 * side * f["light_direction"]).clamp(0, 0.32)
        image = _shade(image, dark * _blob(n - side * 2.4, v - 3, 2.2, 7))
        image = _shade(image, 0.5 * _blob(n - side * 1.6, v - 7.6, 1.5, 1.1))
    image = _shade(image, 0.20 * _blob(n, v - 8.3, 4, 1.8))

    # Mouth: a curve, bent by the smile; lips that taper to its corners; between them the teeth and the dark
    reach = 5.0 + 0.45 * smile
    m = (w / reach).square()
    curve = v - 12.4 + 1.25 * smile * (m - 0.4)
    taper = (1 - m).clamp(0)
    gap = (f["mouth_opening"] + 0.5).clamp(0) * 1.25 * taper
    lip = 1.35 - 0.12 * male
    within = _soft(w.abs() - reach)
    lips = _soft(torch.maximum(-curve - gap * 0.4 - lip * taper, curve - gap * 0.6 - (lip + 0.35) * taper)) * within
    red = skin * torch.tensor((0.90, 0.56, 0.55))[None, :, None, None] * (1 + 0.15 * across)[:, None]
    image = _over(image, (0.80 - 0.08 * male) * lips, red)
    line = _soft(torch.maximum(-curve - gap * 0.4, curve - gap * 0.6) - 0.25) * _soft(w.abs() - reach - 0.3)
    image = _over(image, 0.85 * line, torch.tensor((0.30, 0.09, 0.09)))
    teeth = _soft(torch.maximum(-curve - gap * 0.4 + 0.3, curve + gap * 0.05)) * (gap / 1.5).clamp(max=1) * within
    image = _over(image, 0.9 * teeth, torch.tensor(WHITE))
    image = _shade(image, 0.22 * _blob(w, v - 16.3 - 0.5 * gap, 4, 1.8))
    for side in (-1, 1):  # the folds of a smile
        image = _shade(image, (0.12 * smile).clamp(0) * _blob(w - side * (reach + 1.3), v - 10.5, 1.7, 4))

    # Glasses: two rims, a bridge, and a little of the light on the lenses
    worn = (f["glasses"] > ATTRIBUTES["Eyeglasses"][1]).float()
    rims = _soft((v + 0.9).abs() - 0.5) * _soft(w.abs() - 1.6)  # the bridge
    for side in (-1, 1):
        e = w - side * (6.1 - 0.25 * (side * turn).clamp(0))
        lens = (((e / 5.0).square().square() + ((v - 0.3) / 4.3).square().square()).sqrt().sqrt() - 1) * 4.5
        image = _over(image, 0.10 * worn * _soft(lens), torch.tensor((0.9, 0.95, 1.0)))
        rims = torch.maximum(rims, _soft(lens.abs() - 0.65))
        arm = _soft((v + 1.2).abs() - 0.6) * _soft(5 - side * e) * _soft(radius * 10 - 10.3)
        rims = torch.maximum(rims, arm)
    image = _over(image, 0.92 * worn * rims, torch.tensor((0.12, 0.10, 0.11)))

    # Hair in front: all of it but an opening for the face. Without bangs its edge is high and arched, and parted on
    # one side; with them it is low, flat and fringed.
    bangs = ((f["bangs"] + 1.2) / 3.2).clamp(0, 1)
    edge = -16 + 9.5 * bangs + (0.065 - 0.06 * bangs) * (u + 3 - 2 * bangs).square() + 0.9 * bangs * _wave(u * 0.21)
    edge = edge.clamp(max=-4.5)  # the eyes stay free
    window = torch.maximum(u.abs() - width + 0.3, edge - v)
    front = hair_mask * (1 - _soft(window, 1.8)) * (1 - _soft(10 - v, 3) * _soft(u.abs() - width + 0.3))
    image = _shade(image, 0.25 * head * _soft(v - edge - 2, 4) * _soft(u.abs() - width))
    image = _over(image, front, locks)

    image = image * (1 + 0.13 * f["light_level"])[:, None]
    bright = (image - 0.7).clamp(0, 0.6)  # what would be too bright is compressed, as a camera does
    image = image.clamp(max=0.7) + bright - 0.8 * bright.square()
    return (image.clamp_(0, 1) * 255).round_().to(torch.uint8)


def _palette(value: Tensor, colours: tuple) -> Tensor:
    """The colour at a value from -2 (the first colour) to 2 (the last), mixed of the two nearest: (N, 3, 1, 1)."""
    places = ((value[:, None] + 2) / 4).clamp(0, 1) * (len(colours) - 1)
    table = torch.tensor(colours)[:, None, :, None, None]
    return sum(colour * (1 - (places - i).abs()).clamp(0) for i, colour in enumerate(table))


def _ellipse(u: Tensor, v: Tensor, a: Tensor | float, b: Tensor | float) -> Tensor:
    """About the distance from an ellipse's edge, negative inside."""
    return (((u / a).square() + (v / b).square()).sqrt() - 1) * a


def _soft(distance: Tensor, blur: float = 1.3) -> Tensor:
    """1 inside (a negative distance), 0 outside, smooth over `blur` pixels in between."""
    t = (0.5 - distance / blur).clamp_(0, 1)
    return t * t * (3 - 2 * t)


def _blob(u: Tensor, v: Tensor, a: Tensor | float, b: float) -> Tensor:
    """A soft spot: 1 in its middle, 0 from the ellipse with half axes a, b on."""
    return (1 - (u / a).square() - (v / b).square()).clamp_(0).square()


def _wave(t: Tensor) -> Tensor:
    """A smooth wave between -1 and 1 with period 1, made of parabolas."""
    t = (t - t.floor()) * 2 - 1
    return 4 * t * (1 - t.abs())


def _over(image: Tensor, mask: Tensor, colour: Tensor) -> Tensor:
    """Paint a colour, (3,) or (N, 3, ...), over (N, 3, H, W), in place, where the mask (N, H, W) is."""
    colour = colour[:, None, None] if colour.ndim == 1 else colour
    return image.add_((colour - image).mul_(mask[:, None]))


def _shade(image: Tensor, amount: Tensor) -> Tensor:
    """Darken (N, 3, H, W), in place, by an amount (N, H, W) from 0 to 1."""
    return image.mul_((1 - amount)[:, None])


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
