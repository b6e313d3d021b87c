// Densities over a line, of which one can be grabbed at its peak: across moves its mean, up narrows it, down widens it.
"use strict";

const bell = (() => {
  const density = (z, { mean, sigma }) =>
    Math.exp((-0.5 * (z - mean) ** 2) / sigma ** 2) / (sigma * Math.sqrt(2 * Math.PI));

  // A canvas made ready for `view`: from low to high across, from bottom to top upwards. Ticks below, none where digits
  // is undefined.
  function plot(canvas, { low, high, top, bottom = 0, digits }) {
    const { context, width, height } = page.sharpen(canvas);
    const style = getComputedStyle(canvas);
    const colour = (name) => style.getPropertyValue(name) || style.color;
    const floor = height - (digits === undefined ? 2 : 18);
    const x = (z) => ((z - low) / (high - low)) * width;
    const y = (value) => floor - ((value - bottom) / (top - bottom)) * (floor - 4);
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

    function dot(z, value, name, radius = 7) {
      Object.assign(context, { fillStyle: colour(name), strokeStyle: colour("--pst-color-background"), lineWidth: 2 });
      context.beginPath();
      context.arc(x(z), y(value), radius, 0, 2 * Math.PI);
      context.fill();
      context.stroke();
    }

    function speck(z, value, name) {
      Object.assign(context, { fillStyle: colour(name), globalAlpha: 0.5 });
      context.fillRect(x(z) - 1.5, y(value) - 1.5, 3, 3);
      context.globalAlpha = 1;
    }

    line([[low, 0], [high, 0]], "--pst-color-border", { thickness: 1 });
    if (digits !== undefined) {
      Object.assign(context, { fillStyle: style.color, font: "11px sans-serif", textAlign: "center", textBaseline: "middle" });
      for (let i = 1; i < 6; i++) {
        const z = low + (i / 6) * (high - low);
        context.fillText(page.signed(z, digits), x(z), height - 8);
      }
    }
    return { curve, area, line, dot, speck };
  }

  // Call `move(z, value)` while a pointer is pressed on the canvas.
  function grab(canvas, view, move) {
    function follow(event) {
      if (!event.buttons) return;
      const { low, high, top, bottom = 0, digits } = view();
      const box = canvas.getBoundingClientRect();
      const floor = box.height - (digits === undefined ? 2 : 18);
      const up = (floor - (event.clientY - box.top)) / (floor - 4);
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

  return { density, plot, grab, widthOf, clamp, keep };
})();
