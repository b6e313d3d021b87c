// A draw from q, written as z = mu + sigma epsilon: epsilon is dragged, z follows, and slopes flow past the noise. Below,
// two ways to estimate the gradient of E[f(z)] in mu from draws, as clouds of estimates.
"use strict";

const noise = (() => {
  const FUNCTIONS = {
    square: { value: (z) => z * z, slope: (z) => 2 * z, gradient: ({ mean }) => 2 * mean },
    sine: {
      value: (z) => Math.sin(5 * z),
      slope: (z) => 5 * Math.cos(5 * z),
      gradient: ({ mean, sigma }) => 5 * Math.exp(-12.5 * sigma ** 2) * Math.cos(5 * mean),
    },
  };

  // The slopes of f(z) in mu and sigma for one epsilon.
  function slopes(f, { mean, sigma }, epsilon) {
    const slope = f.slope(mean + sigma * epsilon);
    return { z: slope, mean: slope, sigma: slope * epsilon };
  }

  // What one epsilon says of the gradient in mu: by the path through z, and by the score of q, which needs no slope of f.
  const path = (f, { mean, sigma }, epsilon) => f.slope(mean + sigma * epsilon);
  const score = (f, { mean, sigma }, epsilon) => (f.value(mean + sigma * epsilon) * epsilon) / sigma;

  // Estimates from `samples` draws each.
  function estimates(estimator, f, q, samples, count, seed = 1) {
    const uniform = page.random(seed);
    return Array.from({ length: count }, () => {
      let sum = 0;
      for (let s = 0; s < samples; s++) sum += estimator(f, q, page.normal(uniform));
      return sum / samples;
    });
  }

  function spread(values) {
    const mean = values.reduce((sum, each) => sum + each, 0) / values.length;
    return Math.sqrt(values.reduce((sum, each) => sum + (each - mean) ** 2, 0) / values.length);
  }

  return { FUNCTIONS, slopes, path, score, estimates, spread };
})();

if (document.getElementById("noise")) (() => {
  const root = document.getElementById("noise");
  const find = (name) => document.getElementById(`noise-${name}`);
  const [COUNT, PRIOR] = [400, { mean: 0, sigma: 1 }];
  const view = { low: -4.5, high: 4.5, top: 0.5 };
  let chosen = "square";

  const q = () => ({ mean: page.read(find("mean")), sigma: page.read(find("sigma")) });

  function drawPath() {
    const [{ mean, sigma }, epsilon] = [q(), page.read(find("epsilon"))];
    const z = mean + sigma * epsilon;
    const f = noise.FUNCTIONS[chosen];
    const top = bell.plot(find("prior"), view);
    top.curve((at) => bell.density(at, PRIOR), "--vae-epsilon", { dash: [2, 4] });
    top.line([[epsilon, 0], [epsilon, bell.density(epsilon, PRIOR)]], "--vae-epsilon");
    top.dot(epsilon, 0.02, "--vae-epsilon");
    const below = bell.plot(find("q"), { ...view, top: Math.max(0.5, 1.1 * bell.density(mean, { mean, sigma })) });
    below.curve((at) => bell.density(at, { mean, sigma }), "--vae-encoder", { thickness: 2.5 });
    below.line([[mean, 0], [mean, bell.density(mean, { mean, sigma })]], "--vae-mu");
    below.line([[mean, 0.02], [z, 0.02]], "--vae-sigma", { dash: [5, 3] });
    below.dot(z, 0.02, "--vae-z");
    const slopes = noise.slopes(f, { mean, sigma }, epsilon);
    const values = { mean, sigma, epsilon, z, f: f.value(z) };
    for (const [name, value] of Object.entries(values)) find(`${name}-value`).textContent = page.signed(value, 2);
    const blocked = find("drawn").getAttribute("aria-pressed") === "true";
    for (const name of ["mean", "sigma"]) find(`${name}-slope`).textContent = blocked ? "none" : page.signed(slopes[name], 2);
    find("z-slope").textContent = page.signed(slopes.z, 2);
    root.classList.toggle("noise-blocked", blocked);
    for (const name of ["mean", "sigma", "epsilon"]) find(name).setAttribute("aria-valuetext", find(`${name}-value`).textContent);
  }

  function drawClouds() {
    const [f, samples] = [noise.FUNCTIONS[chosen], 2 ** page.read(find("samples"))];
    const truth = f.gradient(q());
    const reach = 3.5 * Math.max(...[noise.path, noise.score].map((each) => noise.spread(noise.estimates(each, f, q(), 1, COUNT))));
    const picture = bell.plot(find("clouds"), { low: truth - reach, high: truth + reach, top: 1 });
    const jitter = page.random(2);
    for (const [name, estimator, row, colour] of [["path", noise.path, 0.5, "--vae-z"], ["score", noise.score, 0, "--vae-decoder"]]) {
      const values = noise.estimates(estimator, f, q(), samples, COUNT);
      values.forEach((value) => picture.speck(value, row + 0.06 + 0.38 * jitter(), colour));
      find(`${name}-spread`).textContent = noise.spread(values).toFixed(2);
    }
    picture.line([[truth, 0], [truth, 1]], "--vae-mu", { thickness: 2 });
    find("samples-value").textContent = samples;
    find("samples").setAttribute("aria-valuetext", samples);
    find("truth").textContent = page.signed(truth, 2);
  }

  const update = page.eachFrame(() => {
    drawPath();
    drawClouds();
  });

  function press(group, button) {
    for (const each of group) each.setAttribute("aria-pressed", each === button);
    update();
  }

  const ways = [find("drawn"), find("computed")];
  const functions = [find("square"), find("sine")];
  for (const button of ways) button.addEventListener("click", () => press(ways, button));
  for (const button of functions) button.addEventListener("click", () => {
    chosen = button.dataset.function;
    press(functions, button);
  });
  for (const slider of root.querySelectorAll("input")) slider.addEventListener("input", update);
  bell.grab(find("prior"), () => view, (z) => {
    find("epsilon").value = z;
    update();
  });
  bell.grab(find("q"), () => view, (z) => {
    find("epsilon").value = (z - q().mean) / q().sigma;
    update();
  });
  page.show();
  bell.keep(root, update);
})();
