"""Drawn faces: a data set without a download, with the factors from which each image was drawn."""

from math import inf
from types import SimpleNamespace

import torch
from torch import Tensor

from .. import progress
from ..objective import whole_number
from .dataset import Dataset, Split

# Training and test images. Multiples of 16, so that the small set is the beginning of the large one: torch draws an
# incomplete last sixteen differently
COUNTS = {"faces": (4000, 1000), "faces-small": (1024, 160)}
SIDES = (-1, 1)  # left, right
CHUNK = 50  # faces drawn at once; fits a processor's cache, and changes no pixel
ZOOM = 1.35  # as in the crop of CelebA

FACTORS = (
    "light_direction",  # from the left of the image (-) to its right (+)
    "light_level",
    "skin_tone",  # dark to pale
    "hair_colour",  # black to blond
    "hair_length",  # above the ears to below the shoulders
    "bangs",  # from a bare forehead to hair down to the brows
    "glasses",  # worn or not, see ATTRIBUTES
    "smile",  # the corners of the mouth, from down to up
    "mouth_opening",  # closed below -0.5
    "masculinity",  # jaw, brows, lips and the shadow of a beard
    "yaw",  # looking to the left of the image (-) or to its right (+)
    "tilt",  # the crown towards the left of the image (-) or its right (+)
    "background_hue",  # blue, grey, brown
    "background_level",  # dark to bright
    "face_width",
)

# An attribute is present if low < factor <= high. Names are CelebA's, where it has the attribute. Left is the image's
# left.
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


def load(name: str) -> Dataset:
    """Draw training and test images, 3 x 64 x 48, in the numbers of COUNTS.

    The labels are the ATTRIBUTES, one column each.
    """
    drawn = [generate(count, seed) for seed, count in enumerate(COUNTS[name])]
    splits = [Split(images, attributes(factors)) for images, factors in drawn]
    return Dataset(name, *splits, names=tuple(ATTRIBUTES))


def generate(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Draw random factors, and faces from these factors.

    Returns
    -------
    images : uint8 Tensor of shape (count, 3, 64, 48)
    factors : float32 Tensor of shape (count, len(FACTORS)), independent standard normals, clipped to [-2.5, 2.5]

    Raises
    ------
    ValueError
        If the count or the seed isn't an integer below 2^31, the count from 1 on and the seed from 0 on.
    """
    count, seed = whole_number("count", count), whole_number("seed", seed, least=0)
    generator = torch.Generator().manual_seed(seed)
    # In double precision: differences between processors vanish when rounded to single precision
    factors = torch.randn(count, len(FACTORS), generator=generator, dtype=torch.float64).clamp_(-2.5, 2.5).float()
    return render(factors), factors


def attributes(factors: Tensor) -> Tensor:
    """Compute the ATTRIBUTES of faces from their factors: (N, len(FACTORS)) to bool (N, len(ATTRIBUTES))."""
    columns = [(factors[:, FACTORS.index(name)], low, high) for name, low, high in ATTRIBUTES.values()]
    return torch.stack([(low < column) & (column <= high) for column, low, high in columns], 1)


def render(factors: Tensor) -> Tensor:
    """Draw faces: float Tensor (N, len(FACTORS)), with values in [-2.5, 2.5], to uint8 (N, 3, 64, 48).

    Raises
    ------
    ValueError
        If the factors aren't a floating-point tensor of this shape with N > 0.
    """
    kind = f"{factors.dtype} of shape {tuple(factors.shape)}"
    if not factors.is_floating_point() or factors.shape[1:] != (len(FACTORS),) or not len(factors):
        raise ValueError(f"factors must be floats of shape (N, {len(FACTORS)}) with N > 0, not {kind}")
    parts = progress.bar(factors.float().split(CHUNK), desc="drawing faces", delay=2)
    return torch.cat([_draw(part) for part in parts])


def _draw(factors: Tensor) -> Tensor:
    """Paint from back to front, in place.

    We use only sums, products, quotients, comparisons and exact square roots, which every processor rounds alike. There
    are no exponentials or sines. The images, and therefore the data set's fingerprint, are the same everywhere.
    """
    g = _geometry(factors)
    room = _palette(g.background_hue, BACKGROUND) * (1 + 0.22 * g.background_level)
    image = room * (1.06 - 0.00016 * (g.x * g.x + g.y * g.y) + 0.13 * g.across)  # a wall that is brighter in the middle
    _over(image, g.hair_mask, g.locks * 0.72)  # behind the head, all of the hair is there, and darker than in front
    for paint in (_clothes_and_neck, _head, _eyes, _nose, _mouth, _glasses, _hair_in_front):
        paint(image, g)
    image *= 1 + 0.13 * g.light_level
    bright = (image - 0.7).clamp(0, 0.6)  # is compressed, as a camera does
    image = image.clamp(max=0.7) + bright - 0.8 * bright.square()
    return (image.clamp_(0, 1) * 255).round_().to(torch.uint8)


def _geometry(factors: Tensor) -> SimpleNamespace:
    """Compute the painters' shared values: FACTORS by name, (N, 1, 1, 1), pixel positions, and masks, (N, 1, H, W).

    Lengths are in units of 1 / ZOOM pixels. Values that broadcast to these shapes may be smaller.
    """
    g = SimpleNamespace(**dict(zip(FACTORS, factors[:, :, None, None, None].unbind(1), strict=True)))
    g.x = (torch.arange(48, dtype=torch.float32) - 23.5) / ZOOM
    g.y = (torch.arange(64, dtype=torch.float32)[:, None] - 29.5) / ZOOM
    lean = 0.045 * g.tilt
    g.u, g.v = g.x + lean * (g.y - 20), g.y - lean * g.x  # the head's own axes, from between the eyes
    g.turn = 1.6 * g.yaw
    g.w = g.u - g.turn  # from the turned middle of the face
    g.eyes = [(side, g.w - side * (6.1 - 0.25 * (side * g.turn).clamp(0))) for side in SIDES]  # from the middle of each
    g.across = (g.x / 22).clamp(-1, 1) * g.light_direction  # the light on flat parts
    g.grin = g.smile + 0.3  # a face at rest looks friendly
    g.skin, g.hair = _palette(g.skin_tone, SKIN), _palette(g.hair_colour, HAIR)

    # The head is a rounded shape whose lower half is squarer or more pointed. `radius` is 1 on its edge
    g.width = 13.2 + g.face_width + 0.25 * g.masculinity
    g.h = g.u - 0.35 * g.turn  # from the middle of the head, which turns less than the face
    height = torch.where(g.v < 0, 21.5, 20 + 0.4 * g.masculinity)
    uu, vv = (g.h / g.width).square().clamp(max=2), (g.v / height).square().clamp(max=2)
    square = torch.where(g.v < 0, 0.0, (0.18 + 0.22 * g.masculinity).clamp(-0.4, 0.7))
    g.radius = _root((uu + vv - square * uu * vv).clamp(0))
    g.head = _soft((g.radius - 1) * g.width)

    # The hair reaches down to `end`. Longer hair is fuller
    end, full = 12.5 + 9 * g.hair_length, (2.4 + 0.6 * g.hair_length).clamp(1.4, 3.4)
    uu, vv = (g.u / (g.width + full)).square().clamp(max=2), (g.v / (21.5 + full)).square().clamp(max=2)
    dome = (_root(uu + vv - 0.3 * uu * vv) - 1) * (g.width + full)
    sides = g.u.abs() - (g.width + full) - 0.05 * g.v.clamp(0, 30)
    g.hair_mask = _soft(torch.where(g.v < 0, dome, sides)) * _soft(g.v - end + 0.018 * g.u * g.u, 5)
    strands = 1 + 0.06 * _wave(g.u * 0.29 + 0.04 * g.v) + 0.05 * _wave(g.u * 0.43 - 0.03 * g.v)
    gloss = (1 - ((g.v + 17 - 0.02 * g.u * g.u) / 5).square()).clamp(0) * (0.20 + 0.15 * g.across)
    g.locks = g.hair * (strands * (1 + 0.25 * g.across) + gloss)
    return g


def _clothes_and_neck(image: Tensor, g: SimpleNamespace) -> None:
    """Paint shoulders, and a neck in the shadow of the chin."""
    _over(image, _soft(_ellipse(g.x, g.y - 40, 23 + 0.7 * g.masculinity, 17)), _rgb(*CLOTHES) * (1 + 0.25 * g.across))
    nape = g.u.abs() - (6.3 + 0.5 * g.masculinity) - 0.012 * (g.v - 14).clamp(0).square()
    under = 0.62 + 0.022 * (g.v - 16).clamp(0, 14)
    neck = _soft(nape) * _soft(10 - g.v) * _soft(_ellipse(g.x, g.y - 21, 11, 9), 2)
    _over(image, neck, g.skin * (under * (1 + 0.25 * g.across)))


def _head(image: Tensor, g: SimpleNamespace) -> None:
    """Paint ears, the lit head with the shadow of a beard, and cheeks."""
    for side in SIDES:
        ear = _soft(_ellipse(g.h - side * g.width, g.v - 2, 2.2, 4.4))
        _over(image, ear, g.skin * (0.82 + 0.2 * side * g.light_direction * 0.6).clamp(0.4))
    depth = _root((1 - g.radius.square()).clamp(0))  # how far the skin faces the viewer
    light = 0.80 + 0.27 * depth + 0.24 * g.light_direction * (g.h / g.width).clamp(-1, 1) * (1.2 - 0.5 * depth)
    beard = _blob(g.h, g.v - 17, g.width + 1, 13) * (g.masculinity * 0.13).clamp(0)
    _over(image, g.head, g.skin * light.clamp(0.25) * (1 - beard * _rgb(0.9, 0.8, 0.65)))
    for side in SIDES:
        cheek = g.head * _blob(g.w - side * 7.8, g.v - 7 + 0.25 * g.grin, 6, 5)
        _over(image, 0.22 * cheek, g.skin * _rgb(1.08, 0.72, 0.68))


def _eyes(image: Tensor, g: SimpleNamespace) -> None:
    """Paint hollows, white, iris, pupil, a glint, the lid's line, and brows, which masculinity thickens and lowers."""
    v, male = g.v, g.masculinity
    for side, e in g.eyes:
        image *= 1 - 0.25 * g.head * _blob(e, v + 2, 5.5, 5.5)
        lids = (e / 3.5).square()
        opening = torch.maximum(-0.1 - v - 1.9 * (1 - lids), v - 0.1 - 1.3 * (1 - lids))
        white = _soft(opening) * _soft(e.abs() - 3.5)
        _over(image, white, _rgb(*WHITE) * (0.92 + 0.08 * g.across))
        gaze = e - 0.25 * g.turn
        _over(image, white * _soft(_ellipse(gaze, v, 1.75, 1.75)), _rgb(0.30, 0.22, 0.16))
        _over(image, white * _soft(_ellipse(gaze, v, 0.8, 0.8)), _rgb(*INK))
        _over(image, 0.8 * _soft(_ellipse(gaze - 0.7, v + 0.8, 0.5, 0.5)), _rgb(1.0, 1.0, 1.0))
        lid = _soft((v + 0.3 + 1.9 * (1 - lids)).abs() - 0.45) * _soft(e.abs() - 3.8)
        _over(image, (0.75 - 0.08 * male) * lid, _rgb(*INK))
        arch = v + 5.9 - 0.35 * male - 0.055 * (e + side * 0.4).square() + 0.10 * side * e
        brow = _soft(arch.abs() - (0.75 + 0.28 * male).clamp(0.4)) * _soft(e.abs() - 4.4, 2)
        _over(image, (0.75 + 0.1 * male) * brow, g.hair * 0.55 + 0.05)


def _nose(image: Tensor, g: SimpleNamespace) -> None:
    """Paint a light ridge, a shadow on the side away from the light, the nostrils and the tip."""
    n = g.u - 1.5 * g.turn
    image *= 1 + 0.10 * _blob(n, g.v - 2.5, 1.8, 8)
    for side in SIDES:
        dark = (0.14 - 0.07 * side * g.light_direction).clamp(0, 0.32)
        image *= 1 - dark * _blob(n - side * 2.4, g.v - 3, 2.2, 7)
        image *= 1 - 0.5 * _blob(n - side * 1.6, g.v - 7.6, 1.5, 1.1)
    image *= 1 - 0.20 * _blob(n, g.v - 8.3, 4, 1.8)


def _mouth(image: Tensor, g: SimpleNamespace) -> None:
    """Paint lips along a curve that the smile bends, the dark and the teeth between them, and shadows."""
    reach = 5.4 + 0.6 * g.grin
    m = (g.w / reach).square()
    curve = g.v - 12.4 + 1.6 * g.grin * (m - 0.4)
    taper = (1 - m).clamp(0)
    teeth = (1.1 * g.grin).clamp(0) * taper  # their height: a smile shows them, an open mouth alone doesn't
    gap = (g.mouth_opening + 0.5).clamp(0) * 1.5 * taper + teeth
    lip = 1.35 - 0.12 * g.masculinity
    within = _soft(g.w.abs() - reach)
    lips = _soft(torch.maximum(-curve - gap * 0.4 - lip * taper, curve - gap * 0.6 - (lip + 0.35) * taper)) * within
    _over(image, (0.80 - 0.08 * g.masculinity) * lips, g.skin * _rgb(0.90, 0.56, 0.55) * (1 + 0.15 * g.across))
    line = _soft(torch.maximum(-curve - gap * 0.4, curve - gap * 0.6) - 0.25) * _soft(g.w.abs() - reach - 0.3)
    _over(image, 0.85 * line, _rgb(0.30, 0.09, 0.09))
    upper = _soft(torch.maximum(-curve - gap * 0.4, curve + gap * 0.4 - teeth)) * (teeth / 1.2).clamp(max=1) * within
    _over(image, 0.95 * upper, _rgb(*WHITE))
    image *= 1 - 0.22 * _blob(g.w, g.v - 16.3 - 0.5 * gap, 4, 1.8)
    for side in SIDES:  # the folds of a smile
        image *= 1 - (0.18 * g.grin).clamp(0) * _blob(g.w - side * (reach + 1.3), g.v - 10.5, 2, 4.5)


def _glasses(image: Tensor, g: SimpleNamespace) -> None:
    """Paint a bridge, two rims with their arms, and a little light on the lenses."""
    worn = (g.glasses > ATTRIBUTES["Eyeglasses"][1]).float()
    frame = _soft((g.v + 0.9).abs() - 0.5) * _soft(g.w.abs() - 1.6)
    for side, e in g.eyes:
        lens = (_root(_root((e / 5.0).square().square() + ((g.v - 0.3) / 4.3).square().square())) - 1) * 4.5
        _over(image, 0.10 * worn * _soft(lens), _rgb(0.9, 0.95, 1.0))
        arm = _soft((g.v + 1.2).abs() - 0.6) * _soft(5 - side * e) * _soft(g.radius * 10 - 10.3)
        frame = torch.maximum(torch.maximum(frame, _soft(lens.abs() - 0.65)), arm)
    _over(image, 0.92 * worn * frame, _rgb(0.12, 0.10, 0.11))


def _hair_in_front(image: Tensor, g: SimpleNamespace) -> None:
    """Paint the hair in front, with an opening for the face, and its shadow.

    Without bangs, the edge is high, arched, and parted on one side. With bangs, it is low, flat and fringed.
    """
    bangs = ((g.bangs + 1.2) / 3.2).clamp(0, 1)
    edge = -16 + 9.5 * bangs + (0.065 - 0.06 * bangs) * (g.u + 3 - 2 * bangs).square() + 0.9 * bangs * _wave(g.u * 0.21)
    edge = edge.clamp(max=-4.5)  # keeps the eyes free
    beside = g.u.abs() - g.width
    window = torch.maximum(beside + 0.3, edge - g.v)
    front = g.hair_mask * (1 - _soft(window, 1.8)) * (1 - _soft(10 - g.v, 3) * _soft(beside + 0.3))
    image *= 1 - 0.25 * g.head * _soft(g.v - edge - 2, 4) * _soft(beside)
    _over(image, front, g.locks)


def _rgb(red: float, green: float, blue: float) -> Tensor:
    """Make a colour, (3, 1, 1)."""
    return torch.tensor((red, green, blue))[:, None, None]


def _palette(value: Tensor, colours: tuple) -> Tensor:
    """Mix colours, (N, 3, 1, 1), for values (N, 1, 1, 1) from -2 (first colour) to 2 (last), from the nearest two."""
    places = ((value + 2) / 4).clamp(0, 1) * (len(colours) - 1)
    return sum(_rgb(*colour) * (1 - (places - i).abs()).clamp(0) for i, colour in enumerate(colours))


def _ellipse(u: Tensor, v: Tensor, a: Tensor | float, b: Tensor | float) -> Tensor:
    """Approximate the distance from an ellipse's edge, negative inside."""
    return (_root((u / a).square() + (v / b).square()) - 1) * a


def _root(square: Tensor) -> Tensor:
    """Compute the square root, rounded as IEEE 754 requires.

    In single precision, torch uses a library that is off by one bit on some processors. The root in double precision is
    never close enough to a rounding boundary for this to matter.
    """
    return square.double().sqrt().float()


def _soft(distance: Tensor, blur: float = 1.3) -> Tensor:
    """Return 1 inside (negative distance) and 0 outside, with a smooth transition over `blur` pixels."""
    t = (0.5 - distance / blur).clamp_(0, 1)
    return t * t * (3 - 2 * t)


def _blob(u: Tensor, v: Tensor, a: Tensor | float, b: float) -> Tensor:
    """Make a soft spot that is 1 in its middle, and 0 outside the ellipse with half axes a and b."""
    return (1 - (u / a).square() - (v / b).square()).clamp_(0).square()


def _wave(t: Tensor) -> Tensor:
    """Return a smooth wave between -1 and 1 with period 1, made of parabolas."""
    t = (t - t.floor()) * 2 - 1
    return 4 * t * (1 - t.abs())


def _over(image: Tensor, mask: Tensor, colour: Tensor) -> None:
    """Paint a colour, (3, 1, 1) or (N, 3, ...), over (N, 3, H, W), in place, weighted by the mask (N, 1, H, W)."""
    image.add_((colour - image).mul_(mask))
