"""The latent plane and the face lab, in a browser and without a network, as `make book` built them; and their data."""

import json
import re
from io import BytesIO
from itertools import pairwise

import numpy as np
import pytest
import torch
from browsing import PHONE, button, drag, pixels, press, slide
from conftest import BOOK
from PIL import Image

from book.machinery import live
from vaelib import attributes, data, evaluation, models, storage
from vaelib.data import celeba

LAB = json.loads((BOOK / "live" / "celeba.json").read_text())
ATTRIBUTES = {each["name"]: each for each in LAB["attributes"]}
TEXT = " ".join((BOOK / "live" / "faces.md").read_text().split())
MODELS = {"mnist-k1": "plane", "mnist-k2": "plane", "celeba-k64": "faces"}
DECODE = "([name, codes]) => JSON.stringify(codes.map((z) => [...vae.decoder(live[name]).decode(z)]))"
ENCODE = """(images) => {
  const encode = vae.convolutionalEncoder(live["celeba-k64-mean"]);
  return JSON.stringify(JSON.parse(images).map((image) => [...encode(image)]));
}"""
CAMERA = """(allowed) => {
  const canvas = document.createElement("canvas");
  setInterval(() => canvas.getContext("2d").fillRect(0, 0, 300, 150), 50);
  const getUserMedia = async () => (allowed ? (window.stream = canvas.captureStream(10)) : Promise.reject());
  const value = allowed === null ? undefined : { getUserMedia };
  Object.defineProperty(navigator, "mediaDevices", { value, configurable: true });
}"""


@pytest.fixture
def plane(opened):
    return opened("live/plane", **PHONE)


@pytest.fixture
def faces(opened):
    """The lab with the average face, and no slider moved."""
    page = opened("live/faces")
    button(page, "average face").click()
    button(page, "reset").click()
    return page


def seen(page, part=".live"):
    """The colours of a picture, (pixels, 3), and its caption."""
    shown = pixels(page, f"{part} .live-picture canvas")
    return shown.view(-1, 4)[:, :3], page.locator(f"{part} .live-caption").inner_text()


def same(one, other):
    return one[1] == other[1] and torch.equal(one[0], other[0])


def says(page, name, words):
    """Wait until a message of the page has these words."""
    script = "([id, words]) => document.getElementById(id).textContent.includes(words)"
    page.wait_for_function(script, arg=[f"live-{name}", words])


def code(start, **steps):
    """A code, and so many steps along the directions of these attributes."""
    for name, count in steps.items():
        start = start + count * ATTRIBUTES[name]["spread"] * torch.tensor(ATTRIBUTES[name]["direction"])
    return start


@torch.inference_mode()
def decoded(*codes):
    """The colours of each code's face: (pixels, 3)."""
    images = storage.from_pretrained("celeba-k64").decode(torch.stack(codes))
    return 255 * images.permute(0, 2, 3, 1).flatten(1, 2)


@pytest.mark.parametrize("name", MODELS)
def test_the_decoder_in_the_page_is_pytorchs(opened, name):
    model = storage.from_pretrained(name)
    codes = 1.5 * torch.randn(50, model.latent_dim, generator=torch.manual_seed(0))
    with torch.inference_mode():
        expected = model.decode(codes).flatten(1)
    page = opened(f"live/{MODELS[name]}", **PHONE)
    found = torch.tensor(json.loads(page.evaluate(DECODE, [name, codes.tolist()])))
    assert (found - expected).abs().max() < 1 / 255


def test_the_lab_shows_the_code_that_its_sliders_say(opened):
    shown, caption = seen(opened("live/faces", "#start=image-75&Smiling=2.5&Male=-1"))
    (expected,) = decoded(code(torch.tensor(LAB["codes"][1]), Smiling=2.5, Male=-1))
    assert (shown - expected).abs().max() < 1
    assert caption == "Test image 75, reconstructed, Smiling +2.5, Male −1.0"


def test_dragging_and_arrow_keys_move_over_the_plane_change_digit_and_caption_and_do_not_scroll(plane):
    drag(plane, ".live-square", (0.25, 0.25), (0.5, 0.5))
    middle = seen(plane, "#live-k2")
    drag(plane, ".live-square", (0.5, 0.5), (0.75, 0.625))
    after = seen(plane, "#live-k2")
    plane.locator(".live-square").hover()
    assert same(seen(plane, "#live-k2"), after)  # not pressed any more
    assert not torch.equal(middle[0], after[0])
    assert re.match(r"z = \((.?0\.0\d), (.?0\.0\d)\)\. The ten nearest test images show: \d \(\d", middle[1])
    assert re.match(r"z = \(\+(2\.0|1\.9)\d, −(1\.0|0\.9)\d\)\. The ten nearest test images show: 1 \(\d", after[1])
    marker, square = (plane.locator(each).bounding_box() for each in ("#live-k2 .live-marker", ".live-square"))
    for side, size, at in (("x", "width", 0.75), ("y", "height", 0.625)):
        assert marker[side] + marker[size] / 2 == pytest.approx(square[side] + at * square[size], abs=2)
    drag(plane, ".live-square", (0.25, 0.25), (0.5, 0.5))
    height = plane.evaluate("scrollY")
    press(plane, ".live-square", *["ArrowRight"] * 3, "ArrowUp", "Shift+ArrowRight")
    assert re.match(r"z = \(\+1\.(3|29)\d?, \+0\.(1|09)\d?\)", seen(plane, "#live-k2")[1])
    assert plane.evaluate("scrollY") == height


def test_the_line_follows_its_slider_and_a_finger(plane):
    press(plane, "#live-k1 input", "End")
    one, caption = seen(plane, "#live-k1")
    assert caption == "z = (+4.00). The ten nearest test images show: 1 (10)."
    rows = plane.locator(".live-rows")
    rows.tap(position={"x": rows.bounding_box()["width"] / 8, "y": 100})
    zero, caption = seen(plane, "#live-k1")
    assert re.match(r"z = \(−(3\.0|2\.9)\d\).* show: 0 \(10\)", caption)
    assert not torch.equal(zero, one)


@pytest.mark.parametrize("name", ["plane", "faces"])
def test_on_a_phone_the_picture_stays_in_view(opened, name):
    page = opened(f"live/{name}", **PHONE)
    page.locator(".live input").last.evaluate("(it) => { (it.closest('details') ?? it).open = true; }")
    page.locator(".live input").last.scroll_into_view_if_needed()
    picture = page.locator(".live-picture").last.bounding_box()
    assert 0 <= picture["y"] < 100 and picture["y"] + picture["height"] < 300


def test_every_attribute_has_a_slider_and_those_that_the_codes_hold_come_first(faces):
    gains = {name.replace("_", " "): each["accuracy"] - each["majority"] for name, each in ATTRIBUTES.items()}
    assert faces.locator(".live-sliders label").all_text_contents() == list(gains)
    assert list(gains.values()) == pytest.approx(sorted(gains.values(), reverse=True), abs=2e-4)  # they are rounded
    assert faces.locator("#live-held label").count() == sum(gain > 0 for gain in gains.values())
    beside = faces.locator("#live-held span").first.inner_text()
    assert beside == f"{100 * LAB['attributes'][0]['accuracy']:.0f}%, +{100 * gains['Smiling']:.1f}"


def test_faces_to_start_from(faces):
    names = [f"Test image {each}, reconstructed" for each in LAB["images"]]
    button(faces, names[-1]).wait_for()
    assert faces.locator("#live-thumbnails button").evaluate_all("all => all.map((each) => each.ariaLabel)") == names
    shown = [seen(faces)]
    for name in ("random face", "random face", names[-1], "average face"):
        button(faces, name).click()
        assert faces.locator('[aria-pressed="true"]').count() == 1
        shown.append(seen(faces))
    assert same(shown[0], shown[-1])
    assert not any(torch.equal(one[0], other[0]) or one[1] == other[1] for one, other in pairwise(shown))


@pytest.mark.parametrize("clipboard", ["navigator.clipboard", "undefined"])  # which pages from plain http do not have
def test_a_shared_link_leads_to_the_same_face(faces, opened, clipboard):
    faces.evaluate(f"Object.defineProperty(navigator, 'clipboard', {{ value: {clipboard}, configurable: true }})")
    button(faces, "random face").click()
    slide(faces, "#live-Smiling", 1.3)
    slide(faces, "#live-5_o_Clock_Shadow", -2.7)
    button(faces, "share").click()
    says(faces, "message", "leads to this face")
    shared, address = seen(faces), faces.url
    assert same(seen(opened("live/faces", "#" + address.partition("#")[2])), shared)
    slide(faces, "#live-Smiling", 0)
    assert faces.locator("#live-message").inner_text() == ""
    faces.evaluate("location.hash = 'things-to-try'")  # a section's link changes nothing
    assert seen(faces)[1].endswith("Shadow −2.7") and "Smiling" not in seen(faces)[1]
    faces.go_back()
    says(faces, "caption", "Smiling +1.3")
    assert same(seen(faces), shared)


@pytest.mark.parametrize("fragment", ["#start=image-76", "#start=nobody&Smiling=abc", "#start=random-x"])
def test_a_mistyped_link_leads_to_the_average_face(faces, fragment):
    button(faces, "random face").click()
    faces.evaluate("(fragment) => { location.hash = fragment }", fragment)
    says(faces, "caption", "The average face")
    assert seen(faces)[1] == "The average face"


def close(found, expected, atol=6e-4):
    torch.testing.assert_close(torch.tensor(found), expected, rtol=0, atol=atol)


def test_the_plane_is_given_codes_of_every_fourth_image(digits):
    pair = [models.mlp(digits.image_shape, K).eval() for K in (1, 2)]
    given, _ = live.plane(digits, pair)
    assert given["labels"] == digits.test.labels[::4].tolist()
    for model in pair:
        close(given["codes"][str(model.latent_dim)], evaluation.encode(model, digits.test.images)[0][::4])


def test_the_lab_is_given_the_directions_of_all_attributes_that_are_not_rare():
    drawn = data.load("faces-small")
    labels = drawn.train.labels[:, :5].clone()
    labels[:300, 0] = torch.arange(300) < 9
    splits = (data.Split(drawn.train.images[rows], labels[rows]) for rows in (slice(300, None), slice(300)))
    few = data.Dataset("few", *splits, drawn.names[:5])
    model = models.conv(few.image_shape, 8).eval()
    given, _ = live.lab(few, [model])
    means = evaluation.encode(model, few.test.images)[0]
    found = attributes.fit(means, few.test.labels[:, 1:], few.names[1:])
    names = [each["name"] for each in given["attributes"]]
    assert names == sorted(found, key=lambda each: found[each].majority - found[each].accuracy.mean())
    directions = torch.stack([found[name].direction for name in names])
    close([each["direction"] for each in given["attributes"]], directions, 6e-5)
    close([each["spread"] for each in given["attributes"]], (means @ directions.T).std(0))
    assert given["images"] == list(range(0, 300, 25))
    close(given["codes"], means[::25])


def test_what_the_lab_says_of_its_directions_is_so():
    for one, other in (("Smiling", "High_Cheekbones"), ("Male", "Wearing_Lipstick")):
        cosine = np.dot(ATTRIBUTES[one]["direction"], ATTRIBUTES[other]["direction"])
        assert f"a cosine of {cosine:.2f}" in TEXT
    start = torch.zeros(64)
    average, far, back = decoded(start, code(start, Male=4), code(start, Male=4, Wearing_Lipstick=3.5))
    assert (back - average).abs().mean() < (far - average).abs().mean() / 2, "most of the change is undone"


def test_whom_the_model_serves_worse_is_told_as_it_was_measured():
    cells = json.loads((BOOK / "verdict" / "limits.ipynb").read_text())["cells"]
    printed = json.dumps([cell["outputs"] for cell in cells if cell["cell_type"] == "code"])
    for name, told in (("Wearing_Hat", "with a hat"), ("Eyeglasses", "with eyeglasses"), ("Male", "where")):
        measured = re.search(rf"\| {name} +\| \d+ +\| \+(\d+%)[^|]+\| yes", printed)[1]
        assert f"by {measured} {told}" in TEXT


@pytest.fixture(scope="module")
def portrait():
    """A drawn face in a picture of the size of CelebA's aligned photographs, where their crop has it; and that crop."""
    face = data.load("faces-small").test.images[7].permute(1, 2, 0).numpy()
    noise = np.random.default_rng(0).integers(0, 256, (218, 178, 3), np.uint8)
    box, factor = celeba.CROPS[178, 218]
    picture = Image.fromarray(noise)
    picture.paste(Image.blend(Image.fromarray(face).resize((96, 128)), picture.crop(box), 0.2), box)
    return picture, shrunk(picture.crop(box), factor)


def shrunk(picture, factor):
    return torch.tensor(np.asarray(picture.reduce(factor)).astype(int))


def unfold(page):
    page.locator("#live-photo").evaluate("(it) => { it.open = true; }")


def choose(page, picture, kind="PNG"):
    """Give a picture to the page, and wait for its code."""
    picture.save(file := BytesIO(), kind)
    unfold(page)
    page.set_input_files("#live-file", {"name": "me", "mimeType": f"image/{kind.lower()}", "buffer": file.getvalue()})
    says(page, "caption", "Your")


def crop(page):
    """What the page gives the encoder: (64, 48, 3)."""
    return pixels(page, "#live-crop")[:, :, :3]


def test_what_is_no_picture_is_refused_and_a_photograph_goes_all_the_way_to_the_sliders(faces, portrait):
    faces.reload()
    asked = []
    faces.on("request", lambda it: it.url.endswith(".js") and asked.append(it.url.rpartition("/")[2]))
    unfold(faces)
    faces.set_input_files("#live-file", {"name": "x.png", "mimeType": "image/png", "buffer": b"none"})
    says(faces, "photo-message", "cannot read")
    assert not faces.locator("#live-stage").is_visible()
    assert asked == []
    choose(faces, portrait[0])
    assert faces.locator("#live-photo-message").inner_text() == ""
    framed = crop(faces)
    assert (framed - portrait[1]).abs().max() <= 1  # Pillow rounds a half upwards
    with torch.inference_mode():
        (mean,), _ = storage.from_pretrained("celeba-k64").encode(framed.permute(2, 0, 1)[None] / 255)
    copy, smiling = decoded(mean, code(mean, Smiling=2))
    shown, caption = seen(faces)
    assert caption == "Your photograph, reconstructed"
    assert (shown - copy).abs().max() < 1
    assert (pixels(faces, "#live-seen canvas").view(-1, 4)[:, :3] - copy).abs().max() < 1
    slide(faces, "#live-Smiling", 2)
    assert (seen(faces)[0] - smiling).abs().max() < 1
    button(faces, "average face").click()
    assert seen(faces)[1] == "The average face, Smiling +2.0"
    button(faces, "as the model sees it").click()
    assert seen(faces)[1] == "Your photograph, reconstructed, Smiling +2.0"
    button(faces, "share").click()
    says(faces, "message", "your photograph stays here")
    assert faces.url.partition("#")[2] == "start=average&Smiling=2"
    button(faces, "reset").click()
    assert (seen(faces)[0] - copy).abs().max() < 1
    assert asked == ["celeba-k64-mean.js"]


def test_the_encoder_in_the_page_is_pytorchs(faces, portrait):
    choose(faces, portrait[0])
    images = torch.cat([data.load("faces-small").test.images[:4] / 255, torch.rand(2, 3, 64, 48)])
    with torch.inference_mode():
        expected, _ = storage.from_pretrained("celeba-k64").encode(images)
    found = torch.tensor(json.loads(faces.evaluate(ENCODE, json.dumps(images.flatten(1).tolist()))))
    assert (found - expected).abs().max() < 1e-3 * expected.std()


def test_the_frame_moves_by_keys_mouse_and_slider(faces, portrait):
    picture, _ = portrait
    choose(faces, picture)
    before = crop(faces)
    press(faces, "#live-frame", "ArrowRight", "ArrowDown")
    # By two of the picture's pixels, one of the model's
    assert (crop(faces)[:-1, :-1] - before[1:, 1:]).abs().max() <= 1
    press(faces, "#live-frame", *["Shift+ArrowLeft"] * 20)  # it stops at the edge
    assert (crop(faces) - shrunk(picture.crop((0, 62, 96, 190)), 2)).abs().max() <= 1

    def at():
        """The frame's left, top, and height, in pixels of the picture."""
        ask = "(it) => [it.offsetLeft, it.offsetTop, it.offsetHeight, it.offsetParent.offsetWidth]"
        *sides, width = faces.locator("#live-frame").evaluate(ask)
        return [178 / width * each for each in sides]

    drag(faces, "#live-frame", (0.3, 0.3), (0.3 + 41 / 96, 0.3 - 2 / 128))
    assert at() == pytest.approx([41, 60, 128], abs=1)
    drag(faces, "#live-frame", (0.97, 0.98), (0.67, 0.73))  # its corner
    assert at() == pytest.approx([41, 60, 96], abs=2)
    press(faces, "#live-size", "End")
    assert at() == pytest.approx([0, 0, 218], abs=2)  # as large as the picture is high


def test_a_finger_moves_the_frame_of_a_large_picture(opened, portrait):
    page = opened("live/faces", **PHONE)
    choose(page, portrait[0].resize((1780, 2180)), "JPEG")
    assert pixels(page, "#live-picture").shape == (1024, 836, 4)
    assert (crop(page) - portrait[1]).abs().double().mean() < 10
    frame = page.locator("#live-frame")
    frame.evaluate("(it) => it.scrollIntoView({ block: 'end', behavior: 'instant' })")
    box = frame.bounding_box()
    touch = page.context.new_cdp_session(page)
    for kind, moved in (("Start", [0]), ("Move", [20]), ("Move", [30]), ("End", [])):
        points = [{"x": box["x"] + 40 + each, "y": box["y"] + 40} for each in moved]
        touch.send("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": points})
    assert frame.bounding_box()["x"] == pytest.approx(box["x"] + 30, abs=1)


def test_the_camera_if_there_is_one_is_looked_through_until_the_picture_is_taken(faces):
    unfold(faces)
    use = button(faces, "use the camera")
    for allowed in (False, None):  # forbidden, or a page that browsers keep from cameras
        faces.locator("#live-photo-message").evaluate("(it) => { it.textContent = ''; }")
        faces.evaluate(CAMERA, allowed)
        use.click()
        says(faces, "photo-message", "no camera")
    faces.evaluate(CAMERA, True)
    use.click()
    says(faces, "caption", "Your")
    assert faces.evaluate("stream.active")
    button(faces, "take the picture").click()
    assert not faces.evaluate("stream.active")
    assert crop(faces).max() == 0  # a black one
    use.click()
    button(faces, "take the picture").wait_for()
    faces.get_by_text("Start from a photograph").click()  # closing it closes the camera
    faces.wait_for_function("!stream.active")


@pytest.mark.parametrize("path", sorted((BOOK / "live").glob("*.js")), ids=lambda path: path.stem)
def test_names_are_no_markup(path):  # those of somebody's attributes may hold tags
    for markup in re.findall(r"(?:inner|outer)HTML\s*\+?=\s*`(.*?)`", path.read_text("utf-8"), re.DOTALL):
        assert not re.search(r"\$\{[^}]*(name|title|label)", markup)
