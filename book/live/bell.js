// Densities over a line, of which one can be grabbed at its peak: across moves its mean, up narrows it, down widens it.
"use strict";

const bell = (() => {
  const density = (z, { mean, sigma }) =>
    Math.exp((-0.5 * (z - mean) ** 2) / sigma ** 2) / (sigma * Math.sqrt(2 * Math.PI));

  // Round numbers from low to high, four to eight, as pairs: value and text.
  function ticks(low, high) {
    const power = Math.floor(Math.log10((high - low) / 4));
    const step = [1, 2, 5].map((each) => each * 10 ** power).find((each) => (high - low) / each <= 8);
    const first = Math.ceil(low / step);
    return Array.from({ length: Math.floor(high / step) - first + 1 }, (_, i) => {
      const value = (first + i) * step;
      return [value, page.signed(value, Math.max(0, -power))];
    });
  }

  const [FLOOR, ROOF] = [18, 10]; // pixels below what is plotted, for the ticks, and above it, for a dot at the top

  // A canvas made ready for `view`: from low to high across, from bottom to top upwards.
  function plot(canvas, { low, high, top, bottom = 0 }) {
    const { context, width, height } = page.sharpen(canvas);
    const style = getComputedStyle(canvas);
    const colour = (name) => style.getPropertyValue(name) || style.color;
    const floor = height - FLOOR;
    const x = (z) => ((z - low) / (high - low)) * width;
    const y = (value) => floor - ((value - bottom) / (top - bottom)) * (floor - ROOF);
    const points = Array.from({ length: 401 }, (_, i) => low + (i / 400) * (high - low));

    function line(places, name, { thickness = 2, dash = [] } = {}) {
      Object.assign(context, { strokeStyle: colour(name), lineWidth: thickness });
      context.setLineDash(dash);
      context.beginPath();
      places.forEach(([z, value]) => context.lineTo(x(z), y(value)));
      context.stroke();
      context.setLineDash([]);
    }

    const curve = (f, name, options) => line(points.map((z) => [z, f(z)]), name, options);

    function area(f, name, alpha) {
      Object.assign(context, { fillStyle: colour(name), globalAlpha: alpha });
      context.beginPath();
      [[low, 0], ...points.map((z) => [z, f(z)]), [high, 0]].forEach(([z, value]) => context.lineTo(x(z), y(value)));
      context.fill();
      context.globalAlpha = 1;
    }

    // An arrow where the value is above the picture
    function dot(z, value, name, radius = 7) {
      Object.assign(context, { fillStyle: colour(name), strokeStyle: colour("--pst-color-background"), lineWidth: 2 });
      context.beginPath();
      if (value > top) [[0, -8], [8, 7], [-8, 7]].forEach(([right, down]) => context.lineTo(x(z) + right, y(top) + down));
      else context.arc(x(z), y(value), radius, 0, 2 * Math.PI);
      context.closePath();
      context.fill();
      context.stroke();
    }

    function text(z, value, string) {
      Object.assign(context, { fillStyle: style.color, font: "11px sans-serif", textAlign: "center", textBaseline: "middle" });
      context.fillText(string, x(z), y(value));
    }

    function speck(z, value, name) {
      Object.assign(context, { fillStyle: colour(name), globalAlpha: 0.5 });
      context.fillRect(x(z) - 1.5, y(value) - 1.5, 3, 3);
      context.globalAlpha = 1;
    }

    line([[low, 0], [high, 0]], "--pst-color-border", { thickness: 1 });
    const room = 0.03 * (high - low); // for half of a number
    const below = bottom - (10 / (floor - ROOF)) * (top - bottom);
    for (const [z, number] of ticks(low + room, high - room)) text(z, below, number);
    return { curve, area, line, dot, text, speck };
  }

  // Call `move(z, value)` while a pointer is pressed on the canvas.
  function grab(canvas, view, move) {
    function follow(event) {
      if (!event.buttons) return;
      const { low, high, top, bottom = 0 } = view();
      const box = canvas.getBoundingClientRect();
      const floor = box.height - FLOOR;
      const up = (floor - (event.clientY - box.top)) / (floor - ROOF);
      move(low + ((event.clientX - box.left) / box.width) * (high - low), bottom + up * (top - bottom));
    }
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      follow(event);
    });
    canvas.addEventListener("pointermove", follow);
  }

  // The standard deviation of a Gaussian that is so high at its peak.
  const widthOf = (peak) => 1 / (Math.max(peak, 1e-6) * Math.sqrt(2 * Math.PI));
  const clamp = (value, [low, high]) => Math.min(high, Math.max(low, value));

  // Draw now, and again when the theme or the size changes.
  function keep(root, draw) {
    new MutationObserver(draw).observe(document.documentElement, { attributeFilter: ["data-theme"] });
    new ResizeObserver(draw).observe(root);
    draw();
  }

  return { density, ticks, plot, grab, widthOf, clamp, keep };
})();
