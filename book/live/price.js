// What a Gaussian q costs against the prior: the divergence as an area, and the bill that its closed form is.
"use strict";

const price = (() => {
  const PRIOR = { mean: 0, sigma: 1 };
  // Both parts of the closed form, in nats: of a mean that is not 0, and of a width that is not 1.
  const parts = ({ mean, sigma }) => ({ place: mean ** 2 / 2, width: (sigma ** 2 - 1) / 2 - Math.log(sigma) });

  // q log(q / p), whose integral is the divergence; negative where q is below the prior.
  function integrand(z, q) {
    const density = bell.density(z, q);
    return density === 0 ? 0 : density * Math.log(density / bell.density(z, PRIOR));
  }

  // The areas above and below the line, out to where q has ended.
  function areas(q) {
    const step = 0.002;
    let [above, below] = [0, 0];
    for (let z = -16; z <= 16; z += step) {
      const value = integrand(z, q) * step;
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
  const view = { low: -4.5, high: 4.5, top: 1.4, digits: 1 };
  const LIMITS = { mean: [-3, 3], sigma: [0.1, 2] };
  const FULL = 6; // nats that fill a bar
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
    densities.dot(q.mean, Math.min(peak, view.top), "--vae-encoder");

    const heights = Array.from({ length: 181 }, (_, i) => price.integrand(-4.5 + i / 20, q));
    const costs = bell.plot(find("area"), { ...view, top: Math.max(1, 1.1 * Math.max(...heights)), bottom: -0.2, digits: undefined });
    costs.area((z) => Math.max(0, price.integrand(z, q)), "--vae-encoder", 0.6);
    costs.area((z) => Math.min(0, price.integrand(z, q)), "--pst-color-text-muted", 0.6);

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
