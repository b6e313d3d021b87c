// Where models that were trained with different β put the same digits, and what that costs. The numbers of each model
// come from the chapter's notebook; the slider has a step for each, and nothing is made up between them.
"use strict";

const clouds = (() => {
  const { labels, digits, models } = live.betas;
  const D = digits.length / 10;
  const K = 2;
  const NAMES = new Map([
    [1, "the loss of a VAE, with both terms as sums"],
    [1 / K, "= 1 / K: as if the KL were a mean over the K numbers of the code"],
    [D / K, "= D / K: as if both were means, over D pixels and K numbers"],
    [D, "= D: as if the reconstruction were a mean over the D pixels"],
  ]);

  // A model's q for each image: mean and standard deviation along both dimensions of the plane.
  function codes({ codes: numbers }) {
    return labels.map((label, i) => {
      const [x, y, width, height] = numbers.slice(4 * i, 4 * i + 4).map((thousandths) => thousandths / 1000);
      return { label, x, y, width, height };
    });
  }

  // Two rows of ten images, as pixels of one: the digits, and a model's copies.
  function rows({ copies }) {
    const side = Math.sqrt(D);
    const pixels = new Float32Array(20 * D);
    [digits, copies].forEach((text, row) => [...text].forEach((shade, i) => {
      const [image, y, x] = [Math.floor(i / D), Math.floor((i % D) / side), i % side];
      pixels[(row * side + y) * 10 * side + image * side + x] = parseInt(shade, 17) / 16;
    }));
    return { pixels, shape: [1, 2 * side, 10 * side] };
  }

  const sum = ({ reconstruction, kl }) => reconstruction + kl;
  const name = ({ beta }) => NAMES.get(beta) ?? (beta < 1 ? "a cheap code" : "a dear code");
  return { models, codes, rows, sum, name };
})();

if (document.getElementById("clouds")) (() => {
  const root = document.getElementById("clouds");
  const find = (name) => document.getElementById(`clouds-${name}`);
  const LIMIT = 4.6; // of the plane, in each direction
  const FULL = 28; // nats that fill a bar
  let chosen = clouds.models.findIndex(({ beta }) => beta === 1);
  const bound = clouds.models[chosen];

  function drawPlane(model) {
    const { context, width } = page.sharpen(find("plane"));
    const [x, y] = [(value) => (0.5 + value / (2 * LIMIT)) * width, (value) => (0.5 - value / (2 * LIMIT)) * width];
    const scale = width / (2 * LIMIT);
    Object.assign(context, { textAlign: "center", textBaseline: "middle", font: "bold 10px sans-serif", lineWidth: 1 });

    function ellipse(centre, radii) {
      context.beginPath();
      context.ellipse(x(centre.x), y(centre.y), radii.width * scale, radii.height * scale, 0, 0, 2 * Math.PI);
      context.stroke();
    }

    for (const q of clouds.codes(model)) {
      Object.assign(context, { strokeStyle: page.COLOURS[q.label], fillStyle: page.COLOURS[q.label], globalAlpha: 0.3 });
      ellipse(q, q);
      context.globalAlpha = 1;
      context.fillText(q.label, x(q.x), y(q.y));
    }
    Object.assign(context, { strokeStyle: getComputedStyle(root).color, lineWidth: 1.5 });
    context.setLineDash([5, 4]);
    for (const radius of [1, 2, 3]) ellipse({ x: 0, y: 0 }, { width: radius, height: radius });
  }

  const update = page.eachFrame(() => {
    const model = clouds.models[chosen];
    const { beta, reconstruction, kl, information } = model;
    drawPlane(model);
    const { pixels, shape } = clouds.rows(model);
    page.paint(find("copies"), pixels, shape);
    const bars = { reconstruction, kl, sum: clouds.sum(model) };
    const marks = { reconstruction: bound.reconstruction, kl: bound.kl, sum: clouds.sum(bound) };
    for (const [name, nats] of Object.entries(bars)) {
      find(`${name}-bar`).style.width = `${(100 * nats) / FULL}%`;
      find(`${name}-mark`).style.left = `${(100 * marks[name]) / FULL}%`;
      find(name).textContent = nats.toFixed(2);
    }
    find("parts").textContent = `KL: ${information.toFixed(2)} of information + ${(kl - information).toFixed(2)} of misfit`;
    find("beta-value").textContent = beta;
    find("name").textContent = `β = ${beta}, ${clouds.name(model)}`.replace(", =", " =");
    find("beta").setAttribute("aria-valuetext", find("name").textContent);
    page.read(find("beta"));
  });

  Object.assign(find("beta"), { min: 0, max: clouds.models.length - 1, step: 1, value: chosen });
  find("beta").addEventListener("input", () => {
    chosen = Number(find("beta").value);
    update();
  });
  page.show();
  bell.keep(root, update);
})();
