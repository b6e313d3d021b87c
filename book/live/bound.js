// The bound on an image's log p(x): a Gaussian q is dragged over the exact posterior of a VAE with K = 1.
//
// The decoder's log-likelihoods on a grid of codes come with the page; integrals are sums over that grid.
"use strict";

const bound = (() => {
  // All terms in nats: prices, so that reconstruction + kl = minus the ELBO = -log p(x) + gap. The gap is computed as
  // the divergence of q from the posterior, not as a difference.
  function terms({ start, step, logLikelihood, logProb }, q) {
    const kl = (q.mean ** 2 + q.sigma ** 2 - 1) / 2 - Math.log(q.sigma);
    let [reconstruction, gap] = [0, 0];
    logLikelihood.forEach((value, i) => {
      const z = start + i * step;
      const weight = bell.density(z, q) * step;
      if (weight === 0) return;
      reconstruction -= weight * value;
      gap += weight * (Math.log(bell.density(z, q)) - logPosterior({ start, step, logLikelihood, logProb }, i));
    });
    return { reconstruction, kl, gap };
  }

  function logPosterior({ start, step, logLikelihood, logProb }, i) {
    const z = start + i * step;
    return logLikelihood[i] - 0.5 * z * z - 0.5 * Math.log(2 * Math.PI) - logProb;
  }

  return { terms, logPosterior };
})();

if (document.getElementById("bound")) (() => {
  const root = document.getElementById("bound");
  const find = (name) => document.getElementById(`bound-${name}`);
  const images = live.posteriors;
  let image;
  let q;
  let view;

  function choose(chosen, button) {
    image = chosen;
    for (const each of find("choice").children) each.setAttribute("aria-pressed", each === button);
    const posterior = image.logLikelihood.map((_, i) => Math.exp(bound.logPosterior(image, i)));
    const { low, high } = image;
    const peak = Math.max(...posterior, bell.density(0, { mean: 0, sigma: image.encoder.sigma }));
    view = { low, high, top: 1.25 * peak, posterior };
    view.nats = span();
    const [from, to] = view.nats;
    find("ticks").replaceChildren(...bell.ticks(from, to - 0.04 * (to - from)).map(([nats]) => {
      const tick = document.createElement("span");
      tick.textContent = Number(nats.toFixed(6));
      tick.style.left = `${place(nats)}%`;
      return tick;
    }));
    take(image.encoder);
  }

  // The limits of q: its mean in view, and tails that the grid holds, and is fine enough for.
  const limits = () => ({ mean: [view.low, view.high], sigma: [2 * image.step, (view.high - view.low) / 10] });

  // What the bars show of the scale, as long as the image stays: all that the KL can take off, and what the encoder's q
  // misses, and more.
  function span() {
    const { mean, sigma } = limits();
    const dearest = Math.max(...mean.map((each) => bound.terms(image, { mean: each, sigma: sigma[0] }).kl));
    const missed = bound.terms(image, image.encoder).gap;
    return [-image.logProb - dearest, -image.logProb + Math.max(6, 1.4 * missed)];
  }

  // Where a number of nats is on the bars' scale, per cent.
  const place = (nats) => (100 * (nats - view.nats[0])) / (view.nats[1] - view.nats[0]);

  function take({ mean, sigma }) {
    q = { mean: bell.clamp(mean, limits().mean), sigma: bell.clamp(sigma, limits().sigma) };
    for (const [name, value] of [["mean", q.mean], ["sigma", Math.log(q.sigma)]]) {
      const [least, most] = name === "mean" ? limits().mean : limits().sigma.map(Math.log);
      Object.assign(find(name), { min: least, max: most, step: (most - least) / 400 });
      find(name).value = value;
    }
    update();
  }

  function draw() {
    const { start, step } = image;
    const { posterior } = view;
    const picture = bell.plot(find("plot"), view);
    const at = (z) => posterior[Math.round((z - start) / step)];
    picture.area(at, "--pst-color-text-muted", 0.35);
    picture.curve(at, "--pst-color-text-muted", { thickness: 1 });
    picture.curve((z) => bell.density(z, q), "--vae-encoder", { thickness: 2.5 });
    const peak = bell.density(q.mean, q);
    picture.line([[q.mean, 0], [q.mean, peak]], "--vae-mu");
    picture.line([[q.mean, peak * Math.exp(-0.5)], [q.mean + q.sigma, peak * Math.exp(-0.5)]], "--vae-sigma", { dash: [5, 3] });
    picture.dot(q.mean, peak, "--vae-encoder");
    showBill(bound.terms(image, q));
  }

  const update = page.eachFrame(draw);

  // Each bar begins where the one above it ends. Those that begin at zero have a break, and what is beyond the scale's
  // end is torn off.
  function showBill({ reconstruction, kl, gap }) {
    const truth = -image.logProb;
    const sum = reconstruction + kl;
    const bars = { reconstruction: [0, reconstruction], kl: [reconstruction, sum], gap: [truth, truth + gap], truth: [0, truth] };
    for (const [name, [from, to]] of Object.entries(bars)) {
      const [start, end] = [from, to].map((nats) => bell.clamp(place(nats), [0, 100]));
      const left = place(from) < 100 ? `${start}%` : "calc(100% - 8px)"; // no more than the tear is left of it
      Object.assign(find(`${name}-bar`).style, { left, width: `${end - start}%` });
      find(`${name}-bar`).classList.toggle("idea-over", place(to) > 100);
    }
    for (const [name, value] of Object.entries({ reconstruction, kl, gap, truth })) find(name).textContent = value.toFixed(2);
    find("mean-value").textContent = page.signed(q.mean, 3);
    find("sigma-value").textContent = q.sigma.toFixed(4);
    for (const name of ["mean", "sigma"]) {
      page.read(find(name));
      find(name).setAttribute("aria-valuetext", find(`${name}-value`).textContent);
    }
  }

  for (const each of images) {
    const button = document.createElement("button");
    Object.assign(button, { type: "button", ariaLabel: `A ${each.label}, test image ${each.number}` });
    button.append(document.createElement("canvas"));
    page.paint(button.firstChild, each.pixels.map((value) => value / 255), [1, 28, 28]);
    button.addEventListener("click", () => choose(each, button));
    find("choice").append(button);
  }
  find("encoder").addEventListener("click", () => take(image.encoder));
  find("moments").addEventListener("click", () => take(image.posterior));
  find("mean").addEventListener("input", () => take({ ...q, mean: Number(find("mean").value) }));
  find("sigma").addEventListener("input", () => take({ ...q, sigma: Math.exp(find("sigma").value) }));
  bell.grab(find("plot"), () => view, (z, peak) => take({ mean: z, sigma: bell.widthOf(peak) }));
  page.show();
  choose(images[0], find("choice").firstElementChild);
  bell.keep(root, update);
})();
