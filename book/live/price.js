// What a Gaussian q costs against the prior: the divergence as an area, and the bill that its closed form is.
"use strict";

const price = (() => {
  const PRIOR = { mean: 0, sigma: 1 };
  // Both parts of the closed form, in nats: of a mean that is not 0, and of a width that is not 1.
  const parts = ({ mean, sigma }) => ({ place: mean ** 2 / 2, width: (sigma ** 2 - 1) / 2 - Math.log(sigma) });

  // q log(q / p), whose integral is the divergence; negative where q is below the prior. It is a function of
  // ε = (z - μ) / σ: q is as wide as any other then, and the integral is the same.
  function integrand(epsilon, { mean, sigma }) {
    const z = mean + sigma * epsilon;
    return bell.density(epsilon, PRIOR) * ((z ** 2 - epsilon ** 2) / 2 - Math.log(sigma));
  }

  // The areas above and below the line, out to where q has ended.
  function areas(q) {
    const step = 0.002;
    let [above, below] = [0, 0];
    for (let epsilon = -10; epsilon <= 10; epsilon += step) {
      const value = integrand(epsilon, q) * step;
      if (value > 0) above += value;
      else below -= value;
    }
    return { above, below };
  }

  return { PRIOR, parts, integrand, areas };
})();

if (document.getElementById("price")) (() => {
  const root = document.getElementById("price");
  const find = (name) => document.getElementById(`price-${name}`);
  const view = { low: -4.5, high: 4.5, top: 1.4 };
  const COSTS = { low: -4, high: 4, top: 2.9, bottom: -0.3 }; // room for every q within the limits: one scale for all
  const LIMITS = { mean: [-3, 3], sigma: [0.1, 2] };
  const FULL = 6.5; // nats that fill a bar
  let q = { mean: 1, sigma: 0.5 };

  function take({ mean, sigma }) {
    q = { mean: bell.clamp(mean, LIMITS.mean), sigma: bell.clamp(sigma, LIMITS.sigma) };
    find("mean").value = q.mean;
    find("sigma").value = Math.log(q.sigma);
    update();
  }

  const update = page.eachFrame(() => {
    const densities = bell.plot(find("plot"), view);
    densities.curve((z) => bell.density(z, price.PRIOR), "--pst-color-text-muted", { dash: [6, 4] });
    densities.curve((z) => bell.density(z, q), "--vae-encoder", { thickness: 2.5 });
    const peak = bell.density(q.mean, q);
    densities.line([[q.mean, 0], [q.mean, Math.min(peak, view.top)]], "--vae-mu");
    const shoulder = Math.min(peak * Math.exp(-0.5), view.top);
    densities.line([[q.mean, shoulder], [q.mean + q.sigma, shoulder]], "--vae-sigma", { dash: [5, 3] });
    densities.dot(q.mean, peak, "--vae-encoder");

    const costs = bell.plot(find("area"), COSTS);
    const unit = [[-3.7, 1.7], [-2.7, 1.7], [-2.7, 2.7], [-3.7, 2.7], [-3.7, 1.7]];
    costs.line(unit, "--pst-color-text-muted", { thickness: 1 });
    costs.text(-3.2, 2.2, "1 nat");
    costs.area((epsilon) => Math.max(0, price.integrand(epsilon, q)), "--vae-encoder", 0.6);
    costs.area((epsilon) => Math.min(0, price.integrand(epsilon, q)), "--pst-color-text-muted", 0.6);

    const { place, width } = price.parts(q);
    const { above, below } = price.areas(q);
    const left = { place: 0, width: place, sum: 0 };
    for (const [name, nats] of Object.entries({ place, width, sum: place + width })) {
      const [from, to] = [left[name], left[name] + nats].map((end) => bell.clamp((100 * end) / FULL, [0, 100]));
      Object.assign(find(`${name}-bar`).style, { left: `${from}%`, width: `${to - from}%` });
      find(name).textContent = nats.toFixed(3);
    }
    find("areas").textContent = `${above.toFixed(3)} above the line − ${below.toFixed(3)} below it = ${(above - below).toFixed(3)} nats`;
    find("mean-value").textContent = page.signed(q.mean, 2);
    find("sigma-value").textContent = q.sigma.toFixed(2);
    for (const name of ["mean", "sigma"]) {
      page.read(find(name));
      find(name).setAttribute("aria-valuetext", find(`${name}-value`).textContent);
    }
  });

  Object.assign(find("mean"), { min: LIMITS.mean[0], max: LIMITS.mean[1], step: 0.01 });
  Object.assign(find("sigma"), { min: Math.log(LIMITS.sigma[0]), max: Math.log(LIMITS.sigma[1]), step: Math.log(LIMITS.sigma[1] / LIMITS.sigma[0]) / 400 });
  find("mean").addEventListener("input", () => take({ ...q, mean: Number(find("mean").value) }));
  find("sigma").addEventListener("input", () => take({ ...q, sigma: Math.exp(find("sigma").value) }));
  bell.grab(find("plot"), () => view, (z, peak) => take({ mean: z, sigma: bell.widthOf(peak) }));
  page.show();
  take(q);
  bell.keep(root, update);
})();
