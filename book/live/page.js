// What both interactive pages do: paint images, wait for the next frame, and come into view once all is loaded.
"use strict";

const page = (() => {
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

  const show = () => document.documentElement.classList.add("live-on");

  return { paint, eachFrame, signed, read, show };
})();
