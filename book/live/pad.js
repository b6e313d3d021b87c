// A field to draw a digit in, with mouse, pen, finger or keyboard.
"use strict";

// Of a drawing: `size`, the image's side in pixels; `box`, that of the square which the drawing is scaled into; `pen`, how
// thick a stroke is, as a part of the image. `changed` is given the image with every stroke, `settled` when it is done.
const pad = (canvas, { size, box, pen, changed, settled = () => {} }) => {
  const style = { lineCap: "round", lineJoin: "round", strokeStyle: "white" };
  let strokes = []; // lists of points [x, y], from 0 to 1
  let place = [0.5, 0.5]; // of the keyboard's pen
  let writing = false; // with the keyboard
  let unsettled = false; // the drawing is shown as it was drawn, and not yet as the encoder sees it
  let timer;

  // The drawing as the data's digits were made: scaled into the box, then centred by its mass as far as there is room.
  // Returned are the image, size x size numbers from 0 to 1, and where its strokes are in it.
  function digit() {
    const points = strokes.flat();
    if (!points.length) return { image: new Float32Array(size * size), placed: [] };
    const [low, high] = [Math.min, Math.max].map((edge) => [0, 1].map((k) => edge(...points.map((point) => point[k]))));
    const extent = Math.max(high[0] - low[0], high[1] - low[1], 0.05); // a dot stays one
    const scale = (box - size * pen) / extent;
    const context = new OffscreenCanvas(size, size).getContext("2d", { willReadFrequently: true });
    Object.assign(context, style, { lineWidth: size * pen });

    function render(shift) {
      const placed = strokes.map((stroke) => stroke.map(
        (point) => point.map((each, k) => scale * (each - (low[k] + high[k]) / 2) + shift[k]),
      ));
      context.fillRect(0, 0, size, size); // with black
      trace(context, placed);
      const { data } = context.getImageData(0, 0, size, size);
      const image = Float32Array.from({ length: size * size }, (_, i) => data[4 * i] / 255);
      return { image, placed: placed.map((stroke) => stroke.map((point) => point.map((each) => each / size))) };
    }

    const first = render([size / 2, size / 2]).image;
    const mass = first.reduce((total, ink) => total + ink, 0);
    const centre = [(i) => i % size, (i) => Math.floor(i / size)].map(
      (along) => first.reduce((total, ink, i) => total + ink * (along(i) + 0.5), 0) / mass,
    );
    const room = (size - box) / 2; // further, and the box would stick out
    return render(centre.map((each) => size / 2 + Math.max(-room, Math.min(room, (size + 1) / 2 - each))));
  }

  // Draw strokes with the context's pen.
  function trace(context, drawn) {
    context.beginPath();
    for (const stroke of drawn) {
      context.moveTo(stroke[0][0] - 1e-3, stroke[0][1]); // a line without length would not be drawn
      stroke.forEach((point) => context.lineTo(...point));
    }
    context.stroke();
  }

  // From here on the drawing is what the encoder sees: the next stroke begins where the reader sees the last ones.
  function settle() {
    clearTimeout(timer);
    const done = unsettled;
    unsettled = false;
    strokes = digit().placed;
    show();
    if (done) settled();
  }

  function begin() {
    clearTimeout(timer);
    unsettled = true;
    strokes.push([]);
  }

  // The pad hides the image while the reader draws, so that there is one drawing only.
  function show() {
    const { context, width: side } = page.sharpen(canvas);
    context.scale(side, side);
    if (unsettled) {
      context.fillRect(0, 0, 1, 1);
      Object.assign(context, style, { lineWidth: pen });
      trace(context, strokes);
    }
    context.fillStyle = "#ffb454";
    if (document.activeElement === canvas && canvas.matches(":focus-visible")) context.fillRect(place[0] - 0.015, place[1] - 0.015, 0.03, 0.03);
  }

  function add(points) {
    strokes.at(-1).push(...points.map((point) => point.map((each) => Math.max(0, Math.min(1, each)))));
    changed(digit().image);
    show();
  }

  const lift = () => { timer = setTimeout(settle, 800); }; // unless another stroke begins

  page.drag(canvas, begin, (event) => {
    const passed = event.getCoalescedEvents?.() ?? [];
    add((passed.length ? passed : [event]).map((each) => page.point(each, canvas)));
  });
  canvas.addEventListener("lostpointercapture", lift);
  canvas.addEventListener("keydown", (event) => {
    if (event.key !== " " && !(event.key in page.ARROWS)) return;
    event.preventDefault(); // the page would scroll
    if (event.key === " ") {
      writing = !writing;
      if (writing) begin();
      else lift();
    } else {
      const [right, up] = page.ARROWS[event.key];
      const step = event.shiftKey ? 0.2 : 0.05;
      place = [place[0] + step * right, place[1] - step * up].map((each) => Math.max(0, Math.min(1, each)));
    }
    if (writing) add([place]);
    else show();
  });
  canvas.addEventListener("focus", show);
  canvas.addEventListener("blur", () => {
    writing = false;
    settle();
  });

  // Begin with an empty pad; what was drawn is gone.
  return () => {
    [strokes, unsettled] = [[], false];
    settle();
  };
};
