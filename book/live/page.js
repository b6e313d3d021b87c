// What the interactive pages share: colours, random numbers, painting images, pointers, waiting for the next frame, and
// coming into view once all is loaded.
"use strict";

const page = (() => {
  const COLOURS = [ // of the digits 0 to 9, as in the book's figures
    "#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf",
  ];

  // A source of uniform random numbers in [0, 1), always the same for a seed: mulberry32.
  function random(seed) {
    let state = seed;
    return () => {
      state = (state + 0x6d2b79f5) | 0;
      let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
      mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
      return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
    };
  }

  // A standard normal number from two uniform ones, by Box and Muller's formula.
  const normal = (uniform) => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());

  // Make a canvas as sharp as the screen; returns its context, in pixels of the style sheet, and its width and height.
  function sharpen(canvas) {
    const { clientWidth: width, clientHeight: height } = canvas;
    [canvas.width, canvas.height] = [width * devicePixelRatio, height * devicePixelRatio];
    const context = canvas.getContext("2d");
    context.scale(devicePixelRatio, devicePixelRatio);
    return { context, width, height };
  }

  // An image of a decoder, pixel by pixel; the style sheet enlarges the canvas.
  function paint(canvas, pixels, [channels, height, width]) {
    const image = new ImageData(width, height);
    const area = height * width;
    for (let i = 0; i < area; i++) {
      for (let colour = 0; colour < 3; colour++) {
        image.data[4 * i + colour] = 255 * pixels[(colour % channels) * area + i];
      }
      image.data[4 * i + 3] = 255;
    }
    canvas.width = width;
    canvas.height = height;
    canvas.getContext("2d").putImageData(image, 0, 0);
  }

  // A function that has `draw` called with the next frame: once, however often it is called until then.
  function eachFrame(draw) {
    let waiting = false;
    return () => {
      if (!waiting) {
        requestAnimationFrame(() => {
          waiting = false;
          draw();
        });
      }
      waiting = true;
    };
  }

  // -1.5 as "−1.5", with a sign that is as wide as a plus; zero has none.
  function signed(number, digits) {
    const sign = number < 0 ? "−" : "+";
    return (Number(number.toFixed(digits)) ? sign : "") + Math.abs(number).toFixed(digits);
  }

  // A slider's value; the style sheet fills the slider from its middle to there.
  function read(slider) {
    const { min, max, value } = slider;
    slider.style.setProperty("--at", `${(100 * (value - min)) / (max - min)}%`);
    return Number(value);
  }

  const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowDown: [0, -1], ArrowUp: [0, 1] };

  // Where on a canvas a pointer is, as fractions of its width and height.
  function point(event, canvas) {
    const box = canvas.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  }

  function drag(canvas, begin, move) {
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      canvas.setPointerCapture(event.pointerId);
      begin();
      move(event);
    });
    canvas.addEventListener("pointermove", (event) => { if (canvas.hasPointerCapture(event.pointerId)) move(event); });
  }

  const show = () => document.documentElement.classList.add("live-on");

  return { COLOURS, ARROWS, random, normal, sharpen, paint, eachFrame, signed, read, point, drag, show };
})();
