// What the pages share on which a VAE trains: the digits, what is done in an update, and the plane that its codes are in.
"use strict";

const course = (() => {
  const [SIDE, HIDDEN, BATCH] = [8, 128, 64];
  const PIXELS = SIDE * SIDE;

  const pixels = Float64Array.from(live.digits.pixels, (each) => parseInt(each, 17) / 16);
  const { labels } = live.digits;
  const [train, test] = [0, 1].map((tested) => [...labels.keys()].filter((i) => Number(i % 6 === 0) === tested));

  function select(chosen) {
    const images = new Float64Array(chosen.length * PIXELS);
    chosen.forEach((i, at) => images.set(pixels.subarray(i * PIXELS, (i + 1) * PIXELS), at * PIXELS));
    return images;
  }

  // New weights: for a seed always the same ones, and then the same batches and noise.
  function begin(seed) {
    const uniform = page.random(seed);
    return { uniform, layers: learner.build(PIXELS, HIDDEN, 2, uniform), order: [], updates: 0 };
  }

  const noise = ({ uniform }, count, on = true) => Float64Array.from({ length: 2 * count }, () => (on ? page.normal(uniform) : 0));

  // The next 64 training images, in an order that is shuffled when too few are left.
  function next(state) {
    if (state.order.length < BATCH) {
      state.order = [...train];
      for (let i = state.order.length - 1; i > 0; i--) {
        const j = Math.floor((i + 1) * state.uniform());
        [state.order[i], state.order[j]] = [state.order[j], state.order[i]];
      }
    }
    return state.order.splice(-BATCH);
  }

  // An update with some images; returns both prices.
  function update(state, chosen, { beta, rate, noisy = true }) {
    state.updates++;
    return learner.step(state.layers, select(chosen), noise(state, chosen.length, noisy), { beta, rate });
  }

  // A plane that reaches as far as `limit` in each direction: both axes, and those of the circles at one, two and three
  // standard deviations of the prior that fit. `place` says where on the canvas a code is.
  function scenery(canvas, limit) {
    const { context, width } = page.sharpen(canvas);
    const place = ([x, y]) => [(x / limit + 1) * (width / 2), (1 - y / limit) * (width / 2)];
    context.strokeStyle = getComputedStyle(canvas).color;
    context.globalAlpha = 0.35;
    context.beginPath();
    for (let radius = 1; radius <= Math.min(3, limit); radius++) {
      context.moveTo(...place([radius, 0]));
      context.arc(width / 2, width / 2, (radius / limit) * (width / 2), 0, 2 * Math.PI);
    }
    context.moveTo(0, width / 2);
    context.lineTo(width, width / 2);
    context.moveTo(width / 2, 0);
    context.lineTo(width / 2, width);
    context.stroke();
    context.globalAlpha = 1;
    return { context, width, place };
  }

  const [testLabels, testImages] = [test.map((i) => labels[i]), select(test)];
  return { SIDE, PIXELS, labels, train, test, testLabels, testImages, select, begin, noise, next, update, scenery };
})();
