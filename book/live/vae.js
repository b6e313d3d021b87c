// A VAE at work: an image is encoded, a code drawn from q and decoded, and both terms of the bound are shown as a bill.
//
// `vae.look` computes all numbers; the rest shows them, and listens. The reader may draw the image, draw ε again, and
// take the encoder's place: move q, and widen it.
"use strict";

vae.look = (decoder, image, { mean, logVariance }, epsilon) => {
  const sigma = logVariance.map((each) => Math.exp(each / 2));
  const z = mean.map((mu, k) => mu + sigma[k] * epsilon[k]);
  const logits = decoder.logits(z);
  const reconstruction = -vae.logProb(image, logits);
  return { mean, logVariance, sigma, epsilon, z, logits, reconstruction, kl: vae.klDivergence(mean, logVariance) };
};

// The page's part, unless a test loads these functions alone
if (document.getElementById("vae")) (() => {
  const LIMIT = 3.6; // of the plane, in each direction
  const KL_FULL = 20; // nats that fill the line of the KL
  const { COLOURS, ARROWS } = page;
  const { labels, codes, digits } = live.mnist;
  const { encode } = vae.encoder(live["mnist-k2-encoder"]);
  const decoder = vae.decoder(live["mnist-k2"]);
  const root = document.getElementById("vae");
  const find = (name) => document.getElementById(`vae-${name}`);
  const tint = (name) => getComputedStyle(root).getPropertyValue(name);

  const normal = () => page.normal(Math.random);
  const state = { image: undefined, q: undefined, strokes: [], epsilon: [normal(), normal()] };

  // What the reader made of the encoder's q: its mean under the mouse, or where it was left; its width as the slider says.
  function asked() {
    const times = 2 ** find("width").value;
    return {
      mean: state.passed ?? state.moved ?? state.q.mean,
      logVariance: state.q.logVariance.map((each) => each + 2 * Math.log(times)),
    };
  }

  const update = page.eachFrame(() => {
    const encoders = vae.look(decoder, state.image, state.q, state.epsilon);
    const now = vae.look(decoder, state.image, asked(), state.epsilon);
    page.paint(find("x"), state.image, decoder.shape);
    page.paint(find("copy"), now.logits.map(vae.sigmoid), decoder.shape);
    showCosts(now.logits);
    showPlane(now, encoders);
    showBill(now, encoders);
    showWires(now);
  });

  function choose(image, button) {
    state.image = image;
    state.q = encode(image);
    find("hint").hidden = image.some((ink) => ink > 0);
    for (const each of find("choice").children) each.setAttribute("aria-pressed", each === button);
    const { reconstruction, kl } = vae.look(decoder, image, state.q, state.epsilon);
    const least = button ? 4 * (reconstruction + kl) : Math.max(800, state.full, reconstruction + kl);
    state.full = [200, 400, 600, 800, 1200, 1600, 2400].find((each) => each >= least) ?? 4800;
    back();
  }

  function back() {
    state.moved = state.passed = undefined;
    find("width").value = 0;
    update();
  }

  // The image: chosen, or drawn

  for (const { number, label, pixels } of digits) {
    const image = Float32Array.from(pixels, (each) => each / 255);
    const button = document.createElement("button");
    const canvas = document.createElement("canvas");
    Object.assign(button, { type: "button", ariaLabel: `A ${label}, test image ${number}` });
    page.paint(canvas, image, decoder.shape);
    button.append(canvas);
    button.addEventListener("click", () => {
      start();
      choose(image, button);
    });
    find("choice").append(button);
  }

  const start = pad(find("pad"), { size: 28, box: 20, pen: 2.6 / 28, changed: (image) => choose(image) });
  find("clear").addEventListener("click", () => {
    start();
    choose(new Float32Array(28 * 28));
  });

  // The plane

  const plane = find("q");
  const across = ([x, y], width) => [(x + LIMIT) / (2 * LIMIT) * width, (LIMIT - y) / (2 * LIMIT) * width];

  function prepare(canvas) {
    const width = canvas.clientWidth;
    [canvas.width, canvas.height] = [width * devicePixelRatio, width * devicePixelRatio];
    const context = canvas.getContext("2d");
    context.scale(devicePixelRatio, devicePixelRatio);
    return [context, width];
  }

  function ring(context, [x, y], [a, b]) {
    context.beginPath();
    context.ellipse(x, y, a, b, 0, 0, 2 * Math.PI);
    context.stroke();
  }

  function outlined(context, text, x, y, colour) {
    Object.assign(context, { lineWidth: 4, lineJoin: "round", strokeStyle: tint("--pst-color-background"), fillStyle: colour });
    context.strokeText(text, x, y);
    context.fillText(text, x, y);
  }

  // Push points apart until no two are nearer than that, so that names do not cover each other.
  function spread(points, distance) {
    for (let round = 0; round < 50; round++) {
      points.forEach((a, i) => points.slice(0, i).forEach((b) => {
        const between = Math.hypot(a[0] - b[0], a[1] - b[1]);
        if (between >= distance) return;
        for (const k of [0, 1]) {
          const push = (a[k] - b[k]) / between * (distance - between) / 2;
          a[k] += push;
          b[k] -= push;
        }
      }));
    }
  }

  function drawCodes() {
    const [context, width] = prepare(find("codes"));
    const unit = width / (2 * LIMIT);
    context.globalAlpha = 0.5;
    codes[2].forEach((code, i) => {
      const [x, y] = across(code, width);
      context.fillStyle = COLOURS[labels[i]];
      context.fillRect(x - 1, y - 1, 2, 2);
    });
    context.globalAlpha = 0.5;
    Object.assign(context, { strokeStyle: tint("--pst-color-text-muted"), lineWidth: 1 });
    for (const radius of [1, 2, 3]) ring(context, across([0, 0], width), [radius * unit, radius * unit]);
    context.globalAlpha = 1;
    Object.assign(context, { font: "12px sans-serif", textAlign: "center", textBaseline: "middle" });
    outlined(context, "prior", ...across([0, 3], width), tint("--pst-color-text-muted"));
    Object.assign(context, { font: "bold 15px sans-serif", textAlign: "center", textBaseline: "middle" });
    const median = (numbers) => numbers.sort((a, b) => a - b)[numbers.length >> 1];
    const places = COLOURS.map((_, label) => {
      const mine = codes[2].filter((_, i) => labels[i] === label);
      return across([0, 1].map((k) => median(mine.map((code) => code[k]))), width);
    });
    spread(places, 17);
    places.forEach((place, label) => outlined(context, label, ...place, COLOURS[label]));
  }

  // q twice: at its place in the plane, where it is small, and under a lens in the corner that is farthest from it.
  function showPlane(now, encoders) {
    const [context, width] = prepare(plane);
    const unit = width / (2 * LIMIT);
    const centre = across(now.mean, width);
    const radius = 0.17 * width;
    const lens = centre.map((each) => (each > width / 2 ? radius + 8 : width - radius - 8));
    const size = 2.8 * unit * Math.max(...now.sigma);
    const times = [100, 70, 50, 30, 20, 15, 10, 7, 5, 3, 2].find((each) => each * size < radius);
    if (asked().mean !== encoders.mean || find("width").value != 0) {
      context.globalAlpha = 0.55;
      gaussian(context, across(encoders.mean, width), encoders, unit);
      context.globalAlpha = 1;
    }
    gaussian(context, centre, now, unit);
    if (!times) return; // it is large enough

    const away = Math.hypot(lens[0] - centre[0], lens[1] - centre[1]);
    const toward = lens.map((each, k) => (each - centre[k]) / away);
    Object.assign(context, { strokeStyle: tint("--pst-color-text-muted"), lineWidth: 1 });
    context.setLineDash([]);
    context.beginPath();
    for (const side of [-1, 1]) {
      context.moveTo(centre[0] + 5 * toward[0], centre[1] + 5 * toward[1]);
      context.lineTo(lens[0] - side * radius * toward[1], lens[1] + side * radius * toward[0]);
    }
    context.globalAlpha = 0.6;
    context.stroke();
    context.globalAlpha = 1;
    context.save();
    context.beginPath();
    context.arc(...lens, radius, 0, 2 * Math.PI);
    context.fillStyle = tint("--pst-color-background");
    context.fill();
    context.stroke();
    context.clip();
    gaussian(context, lens, now, unit * times, true);
    Object.assign(context, { font: "12px sans-serif", textAlign: "center", textBaseline: "middle" });
    const side = now.epsilon[1] < 0 ? -1 : 1; // where z is not
    outlined(context, `× ${times}`, lens[0], lens[1] + side * (radius - 12), tint("--pst-color-text-muted"));
    context.restore();
  }

  // Rings at one and two σ, a cross at μ, a dotted line σε, and a dot at z.
  function gaussian(context, [x, y], { sigma, epsilon }, unit, named = false) {
    const z = [x + unit * sigma[0] * epsilon[0], y - unit * sigma[1] * epsilon[1]];
    Object.assign(context, { lineWidth: 2, strokeStyle: tint("--vae-sigma") });
    context.setLineDash([5, 3]);
    for (const times of [1, 2]) ring(context, [x, y], sigma.map((each) => Math.max(times * unit * each, 3 * times)));
    context.setLineDash([2, 3]);
    Object.assign(context, { lineWidth: 2.5, strokeStyle: tint("--vae-epsilon") });
    line(context, [x, y], z);
    context.setLineDash([]);
    Object.assign(context, { lineWidth: named ? 2.5 : 2, strokeStyle: tint("--vae-mu") });
    const arm = named ? 6 : 4;
    line(context, [x - arm, y], [x + arm, y]);
    line(context, [x, y - arm], [x, y + arm]);
    context.beginPath();
    context.arc(...z, named ? 5 : 3.5, 0, 2 * Math.PI);
    Object.assign(context, { fillStyle: tint("--vae-z"), strokeStyle: tint("--pst-color-background"), lineWidth: 1.5 });
    context.fill();
    context.stroke();
    if (!named) return;
    Object.assign(context, { font: "bold 15px sans-serif", textAlign: "center", textBaseline: "middle" });
    const side = z[0] < x ? -1 : 1;
    outlined(context, "z", z[0] + 12 * side, z[1], tint("--vae-z"));
    outlined(context, "μ", x - 13 * side, y, tint("--vae-mu"));
  }

  function line(context, from, to) {
    context.beginPath();
    context.moveTo(...from);
    context.lineTo(...to);
    context.stroke();
  }

  function move(mean) {
    state.moved = mean.map((each) => Math.max(-LIMIT, Math.min(LIMIT, each)));
    state.passed = undefined;
    update();
  }

  function code(event) {
    const [x, y] = page.point(event, plane);
    return [(2 * x - 1) * LIMIT, (1 - 2 * y) * LIMIT];
  }

  page.drag(plane, () => {}, (event) => move(code(event)));
  plane.addEventListener("pointermove", (event) => {
    if (event.buttons) return;
    state.passed = code(event);
    update();
  });
  plane.addEventListener("pointerleave", () => {
    state.passed = undefined;
    update();
  });
  plane.addEventListener("keydown", (event) => {
    if (!(event.key in ARROWS)) return;
    event.preventDefault();
    move(asked().mean.map((each, k) => each + ARROWS[event.key][k] * (event.shiftKey ? 1 : 0.1)));
  });

  find("draw").addEventListener("click", () => {
    state.epsilon = [normal(), normal()];
    update();
  });
  find("width").addEventListener("input", update);
  find("back").addEventListener("click", back);

  // The bill

  // Each pixel's cost in nats; white is what was thought improbable, at 20% or less.
  function showCosts(logits) {
    const costs = Array.from(logits, (logit, j) => -vae.logProb([state.image[j]], [logit]) / -Math.log(0.2));
    page.paint(find("costs"), costs.map((each) => Math.min(each, 1)), decoder.shape);
  }

  // One scale for as long as the image stays, the KL's larger by a factor; a bar beyond its end is torn off there.
  function showBill(now, encoders) {
    const [sum, theirs] = [now, encoders].map((each) => each.reconstruction + each.kl);
    const mine = sum !== theirs;
    const place = (element, from, to, full) => {
      element.style.left = `${100 * from / full}%`;
      element.style.width = `${100 * Math.max(0, Math.min(to, full) - from) / full}%`;
      element.classList.toggle("vae-over", to > full);
    };
    const marks = root.querySelectorAll(".vae-mark");
    [[encoders.reconstruction, state.full], [encoders.kl, KL_FULL], [theirs, state.full]].forEach(([nats, full], row) => {
      marks[row].hidden = !mine;
      marks[row].style.left = `${100 * Math.min(1, nats / full)}%`;
    });
    const bar = (name) => root.querySelector(`.vae-${name}`);
    place(bar("bar-reconstruction"), 0, now.reconstruction, state.full);
    place(bar("bar-kl"), 0, now.kl, KL_FULL);
    place(bar("bar-sum"), 0, sum, state.full);
    place(bar("tip"), now.reconstruction, sum, state.full);
    find("reconstruction").textContent = now.reconstruction.toFixed(1);
    find("kl").textContent = now.kl.toFixed(1);
    find("sum").textContent = `${sum.toFixed(1)} nats`;
    find("factor").textContent = `shown × ${state.full / KL_FULL}`;
    showScale();
    find("back").disabled = !mine;
    const times = 2 ** find("width").value;
    find("times").textContent = `× ${times < 1 ? times.toFixed(2) : times.toPrecision(2)}`;
    find("caption").textContent = `ELBO = −(${now.reconstruction.toFixed(1)} + ${now.kl.toFixed(1)}) = −${sum.toFixed(1)} nats. ${remark(sum, theirs)}`;
  }

  function showScale() {
    const ticks = root.querySelector(".vae-ticks");
    if (ticks.dataset.top === String(state.full)) return;
    // It is another scale, and that is seen
    if (ticks.dataset.top) ticks.animate({ color: [tint("--pst-color-primary"), ""], fontWeight: ["bold", "bold"] }, 1500);
    ticks.dataset.top = state.full;
    ticks.replaceChildren(...[0, 1, 2, 3, 4].map((quarter) => {
      const tick = document.createElement("span");
      tick.textContent = state.full * quarter / 4;
      tick.style.left = `${25 * quarter}%`;
      return tick;
    }));
  }

  function remark(sum, theirs) {
    if (state.passed) return "q follows the mouse. Press to leave it here.";
    if (sum !== theirs) {
      const saved = Math.abs(sum - theirs).toFixed(1);
      return `This q is yours, and ${saved} nats ${sum < theirs ? "cheaper" : "dearer"} than the encoder’s (the marks) with the same ε.`;
    }
    if (!find("hint").hidden) return "Draw something. The copy of nothing is a digit, too: the model knows nothing else.";
    return "Can you make the sum smaller? Drag q in the plane, and change its width.";
  }

  // The middle

  const BELL = ([x, density]) => `${180 + 30 * x} ${280 - 60 * density}`;
  const density = (x) => Math.exp(-x * x / 2);
  const curve = Array.from({ length: 61 }, (_, i) => BELL([i / 10 - 3, density(i / 10 - 3)]));
  root.querySelector(".vae-bell").setAttribute("d", `M${curve.join("L")}`);

  function showWires(now) {
    for (const element of root.querySelectorAll("[data-value]")) {
      const [, name, k] = /^(\w+?)(\d)$/.exec(element.dataset.value);
      element.textContent = now[name][k].toFixed(3).replace("-", "−");
    }
    root.querySelectorAll("[data-epsilon]").forEach((dot, k) => {
      const x = Math.max(-3, Math.min(3, now.epsilon[k]));
      dot.setAttribute("transform", `translate(${BELL([x, density(x)])})`);
    });
  }

  // Pointing at a part, with mouse, finger or keyboard, lights it everywhere.
  function light(event) {
    const parts = event.target.closest?.("[data-part]")?.dataset.part.split(" ") ?? [];
    for (const element of root.querySelectorAll("[data-part]")) {
      element.classList.toggle("vae-lit", element.dataset.part.split(" ").some((each) => parts.includes(each)));
    }
    root.classList.toggle("vae-lighting", parts.length > 0);
  }
  for (const kind of ["pointerover", "focusin"]) root.addEventListener(kind, light);
  root.addEventListener("pointerleave", light);

  // The chapter's own code has its variables in the colours of the wires too.
  const WIRES = { mu: "mu", log_var: "sigma", sigma: "sigma", eps: "epsilon", z: "z", encoder: "encoder", decoder: "decoder" };
  for (const name of document.querySelectorAll("article .highlight .n")) {
    if (name.textContent in WIRES) name.classList.add(`vae-${WIRES[name.textContent]}`);
  }

  const middle = root.querySelector("details");
  const behavior = matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth";
  middle.addEventListener("toggle", () => middle.open && middle.scrollIntoView({ block: "nearest", behavior }));

  page.show(); // first, as a hidden canvas has no size
  const redraw = () => {
    drawCodes();
    update();
  };
  new ResizeObserver(redraw).observe(plane);
  new MutationObserver(redraw).observe(document.documentElement, { attributeFilter: ["data-theme"] });
  find("choice").children[4].click(); // a 6
})();
