// The front page: a small VAE learns by itself, and its reader draws into it, turns its price, and slows it down.
//
// It takes 60 steps a second, as far as the machine can, and is drawn 20 times a second; its steps shorten to nothing, and
// then no frame is asked for.
"use strict";

(() => {
  const { SIDE, PIXELS, labels, train, test, testLabels, testImages } = course;
  const BETAS = [0, 0.03, 0.1, 0.3, 1, 2, 5];
  const START = { beta: 0.3, seed: 5, speed: "fast" };
  const FRAME = 24; // of a part's turn, in ticks
  const PARTS = [
    "A batch of 64 digits goes in. This is one of them.",
    "The encoder turns its 64 pixels into two numbers.",
    "The two numbers are a place in the plane. Noise blurs it a little.",
    "The decoder sees nothing but the place.",
    "From there it draws a copy.",
    "The copy’s errors and the code’s length are counted.",
    "All weights of both networks move a little, so that both get less.",
  ];
  const EVERY = { fast: 1, slow: 10, parts: FRAME * PARTS.length }; // ticks for a step
  const [AGAIN, WARM, LAST] = [120, 420, 720]; // steps: where one goes on after a change, the longest one, the last one
  const NEAR = 10; // neighbours of a digit
  const GREY = "#8a8a8a";
  const WORDS = {
    learning: "the digits aren’t sorted yet.",
    memorised: "a code is long enough to number all 1,497 digits.",
    balanced: "a code says what kind of digit it is, and leaves out most of the rest.",
    collapsed: "a code says less than a yes or no, so all copies are alike.",
  };
  const root = document.getElementById("toy");
  const find = (name) => document.getElementById(`toy-${name}`);
  const plane = find("plane");
  const sprites = new OffscreenCanvas(test.length * (SIDE + 2), 2 * (SIDE + 2)); // each digit in colour, and in grey

  const blur = course.noise({ uniform: page.random(1) }, test.length); // always the same, so that no colour flickers

  let model;
  let batch; // of the next step
  let image; // that is shown
  let mine = false; // drawn or chosen by the reader, so it stays
  let passed; // the place that the reader points at
  let since; // steps since the start, or since the price was changed
  let prices;
  let frames = 0;
  let running = false;
  let once = false; // stop after this step
  let visible = false;
  let waiting = false;
  let codes; // of the test digits, where they go: x, y, and the share of their neighbours that are of their kind
  let shown; // and where they are seen by now
  let limit; // of the plane

  const beta = () => BETAS[find("beta").value];
  const byPart = () => once || find("speed").value === "parts";
  const say = (text) => { find("message").textContent = text; };

  // What is computed

  // New weights; but the decoder begins with the mean digit, or its way there would push all codes aside.
  function begin(seed) {
    model = { ...course.begin(seed), seed };
    const images = course.select(train);
    const biases = model.layers[3].numbers.subarray(-PIXELS);
    biases.forEach((_, j) => {
      const ink = train.reduce((sum, _, n) => sum + images[n * PIXELS + j], 0) / train.length;
      biases[j] = Math.log((ink + 0.01) / (1.01 - ink));
    });
    batch = course.next(model);
    [since, frames, prices] = [0, 0, undefined];
    if (!mine) image = course.select(batch.slice(0, 1));
    look();
    shown ??= codes.map((code) => [...code]);
    limit ??= reach();
  }

  function step() {
    const rate = 0.008 * Math.min(1, (since + 40) / WARM) ** 2 * Math.max(0.02, 1 - since / LAST);
    const { reconstruction, kl } = course.update(model, batch, { beta: beta(), rate });
    prices ??= [reconstruction, kl];
    prices = prices.map((each, i) => each + 0.1 * ([reconstruction, kl][i] - each));
    since++;
    batch = course.next(model);
    if (model.updates % 4 === 0 || byPart()) look();
    if (!mine && (byPart() || model.updates % (60 / EVERY[find("speed").value]) === 0)) image = course.select(batch.slice(0, 1));
    if (since === LAST) {
      pause(`Settled after ${model.updates.toLocaleString("en")} steps. Draw a digit, pass over the plane, or turn the price.`);
    }
  }

  // Where the encoder puts the test digits; and now and then, which of them the noise would leave among their kind.
  function look() {
    const q = learner.encode(model.layers, testImages);
    const noisy = testLabels.map((_, i) => [0, 1].map((k) => q[4 * i + k] + Math.exp(q[4 * i + 2 + k] / 2) * blur[2 * i + k]));
    const count = !codes || model.updates % 12 === 0 || byPart();
    const share = (i) => (near(noisy[i], noisy)[testLabels[i]] - 1) / NEAR;
    codes = testLabels.map((_, i) => [q[4 * i], q[4 * i + 1], count ? share(i) : codes[i][2]]);
  }

  // How many of each kind are among the test digits nearest to a place: ten, or one more that is there itself.
  function near([x, y], places) {
    const away = Float64Array.from(places, (place) => (place[0] - x) ** 2 + (place[1] - y) ** 2);
    const edge = away.slice().sort()[NEAR];
    const counts = new Array(10).fill(0);
    testLabels.forEach((label, i) => { counts[label] += away[i] <= edge; });
    return counts;
  }

  function reach() {
    const sizes = codes.map(([x, y]) => Math.max(Math.abs(x), Math.abs(y))).sort((a, b) => a - b);
    return Math.max(2.2, 1.12 * sizes[Math.floor(0.99 * sizes.length)]);
  }

  // What is seen

  function wake() {
    if (!waiting && visible) requestAnimationFrame(frame);
    waiting ||= visible;
  }

  let last = 0; // when the last frame was drawn
  function frame(now) {
    waiting = false;
    if (now - last < 45) return wake();
    const end = performance.now() + 60;
    let moved;
    for (let due = Math.min(12, Math.round(0.06 * (now - last))); due > 0 && performance.now() < end; due--) moved = tick();
    last = now;
    draw();
    if (running || moved > 0.01) wake();
  }

  // What is done 60 times a second; returns how much is still on its way.
  function tick() {
    if (running) {
      frames++;
      if (byPart() ? frames % EVERY.parts === 6 * FRAME : frames % EVERY[find("speed").value] === 0) step();
      if (once && frames % EVERY.parts === 0) pause(`One step, the ${model.updates.toLocaleString("en")}th.`);
    }
    const wider = reach() - limit;
    limit += (wider > 0 ? 0.3 : 0.05) * wider;
    let moved = Math.abs(wider);
    shown.forEach((at, i) => codes[i].forEach((goal, k) => {
      at[k] += (k < 2 ? 0.3 : 0.06) * (goal - at[k]);
      moved = Math.max(moved, Math.abs(goal - at[k]));
    }));
    return moved;
  }

  function draw() {
    const q = learner.encode(model.layers, image);
    const z = passed ?? [q[0], q[1]];
    page.paint(find("x"), image, [1, SIDE, SIDE]);
    page.paint(find("copy"), learner.decode(model.layers, Float64Array.from(z)).map(learner.sigmoid), [1, SIDE, SIDE]);
    drawPlane(q);
    find("code").textContent = `${page.signed(z[0], 2)}, ${page.signed(z[1], 2)}`;
    find("x-name").textContent = mine ? "your digit" : "a digit";
    find("copy-name").textContent = passed ? "what belongs there" : "its copy";
    find("updates").textContent = model.updates.toLocaleString("en");
    for (const [i, name] of ["reconstruction", "kl"].entries()) {
      find(name).textContent = prices ? prices[i].toFixed(1) : "–";
      find(`${name}-bar`).style.width = `${Math.min(100, (100 * (prices?.[i] ?? 0)) / 45)}%`;
    }
    const word = judge();
    if (find("word").textContent !== word) {
      find("word").textContent = word;
      find("meaning").textContent = WORDS[word];
    }
    const part = running && byPart() ? Math.floor((frames % EVERY.parts) / FRAME) : -1;
    find("phase").textContent = PARTS[part] ?? "";
    find("message").hidden = part >= 0;
    root.dataset.lit = part < 0 ? (running ? "all" : "") : part;
    for (const each of root.querySelectorAll("[data-part]")) {
      each.classList.toggle("toy-lit", Number(each.dataset.part) === part || (part === 6 && ["1", "2", "3"].includes(each.dataset.part)));
    }
    find("sorted").textContent = `${Math.round(100 * sorted())}%`;
  }

  const sorted = () => codes.reduce((sum, [, , share]) => sum + share / codes.length, 0);

  // How much the codes say: less than a yes or no, more than a digit's number among all, or something between.
  function judge() {
    if (!prices) return "learning";
    if (prices[1] < Math.LN2) return model.updates < WARM ? "learning" : "collapsed";
    if (prices[1] > Math.log(train.length)) return "memorised";
    return since < LAST && sorted() < 0.5 ? "learning" : "balanced";
  }

  function drawSprites() {
    const context = sprites.getContext("2d");
    test.forEach((_, i) => [page.COLOURS[testLabels[i]], GREY].forEach((colour, row) => {
      context.fillStyle = colour;
      for (let j = 0; j < PIXELS; j++) {
        context.globalAlpha = Math.min(1, 1.5 * testImages[i * PIXELS + j]);
        context.fillRect(i * (SIDE + 2) + 1 + (j % SIDE), row * (SIDE + 2) + 1 + Math.floor(j / SIDE), 1, 1);
      }
    }));
  }

  function drawPlane(q) {
    const { context, width, place } = course.scenery(plane, limit);
    const style = getComputedStyle(root);
    const size = Math.max(13, width / 23);
    const cell = SIDE + 2;
    shown.forEach((at, i) => {
      const [x, y] = place(at);
      const share = Math.max(0, Math.min(1, (at[2] - 0.15) / 0.35)); // of its colour
      [share, 0.5 * (1 - share)].forEach((alpha, row) => {
        if (alpha < 0.02) return;
        context.globalAlpha = alpha;
        context.drawImage(sprites, i * cell, row * cell, cell, cell, x - size / 2, y - size / 2, size, size);
      });
    });
    context.globalAlpha = 1;
    ring(place([q[0], q[1]]), 11, style.getPropertyValue("--vae-mu"));
    if (passed) ring(place(passed), 11, style.getPropertyValue("--vae-decoder"));

    function ring(at, radius, colour) {
      for (const [lineWidth, strokeStyle] of [[6, style.getPropertyValue("--pst-color-background")], [3, colour]]) {
        Object.assign(context, { lineWidth, strokeStyle });
        context.beginPath();
        context.arc(...at, radius, 0, 2 * Math.PI);
        context.stroke();
      }
    }
  }

  // What the reader does

  function pause(text = "Paused.") {
    [running, once] = [false, false];
    find("run").textContent = "Go on";
    say(text);
    wake();
  }

  function run() {
    if (since >= LAST) since = AGAIN;
    if (!running) last = performance.now(); // or the time at rest would be due
    running = true;
    find("run").textContent = "Pause";
    say("A digit gets its colour when its neighbours are of its kind.");
    wake();
  }

  const settings = () => ({ beta: beta(), seed: model.seed, speed: find("speed").value, ...(running && !once ? {} : { paused: 1 }) });
  // As for the face lab: not `location.hash = ...`, which would be another address
  const remember = () => history.replaceState(null, "", `#${new URLSearchParams(settings())}`);

  // The address holds the state; what it lacks, or has wrong, is as at the start.
  function restore() {
    const wanted = new URLSearchParams(location.hash.slice(1));
    const index = BETAS.indexOf(Number(wanted.get("beta") ?? START.beta));
    find("beta").value = index < 0 ? BETAS.indexOf(START.beta) : index;
    find("speed").value = wanted.get("speed") in EVERY ? wanted.get("speed") : START.speed;
    showBeta();
    begin(Number.parseInt(wanted.get("seed"), 10) || START.seed);
    if (wanted.has("paused")) pause();
    else run();
  }

  function showBeta() {
    page.read(find("beta"));
    find("beta").setAttribute("aria-valuetext", beta());
    find("beta-value").textContent = beta();
  }

  function choose(chosen, button) {
    image = Float64Array.from(chosen);
    [mine, passed] = [true, undefined];
    find("hint").hidden = image.some((ink) => ink > 0);
    for (const each of find("choice").children) each.setAttribute("aria-pressed", each === button);
    wake();
  }

  // Says among which digits an image has landed.
  function locate() {
    const q = learner.encode(model.layers, image);
    const counts = near(q, codes);
    const most = counts.indexOf(Math.max(...counts));
    say(`It landed here: of its ten neighbours, ${Math.min(NEAR, counts[most])} are ${most}s.`);
  }

  const empty = pad(find("pad"), {
    size: 4 * SIDE, box: 4 * SIDE, pen: 0.14, settled: locate,
    changed: (drawn) => choose(Array.from({ length: PIXELS }, (_, j) => { // each pixel is the mean of 4 x 4, as in the data
      const [top, left] = [4 * Math.floor(j / SIDE), 4 * (j % SIDE)];
      let sum = 0;
      for (let k = 0; k < 16; k++) sum += drawn[(top + (k >> 2)) * 4 * SIDE + left + (k & 3)];
      return sum / 16;
    })),
  });
  find("clear").addEventListener("click", () => {
    empty();
    choose(new Float64Array(PIXELS));
  });
  page.COLOURS.forEach((_, digit) => {
    const number = test.find((i) => labels[i] === digit);
    const button = document.createElement("button");
    const canvas = document.createElement("canvas");
    Object.assign(button, { type: "button", ariaLabel: `A ${digit}` });
    page.paint(canvas, course.select([number]), [1, SIDE, SIDE]);
    button.append(canvas);
    button.addEventListener("click", () => {
      empty();
      choose(course.select([number]), button);
      locate();
    });
    find("choice").append(button);
  });

  const point = (place) => {
    passed = place?.map((each) => Math.max(-limit, Math.min(limit, each)));
    wake();
  };
  const follow = (event) => {
    const [x, y] = page.point(event, plane);
    point([(2 * x - 1) * limit, (1 - 2 * y) * limit]);
  };
  page.drag(plane, () => {}, follow);
  plane.addEventListener("pointermove", (event) => event.pointerType === "mouse" && follow(event));
  plane.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && point());
  plane.addEventListener("blur", () => point());
  plane.addEventListener("keydown", (event) => {
    if (event.key === "Escape") point();
    if (!(event.key in page.ARROWS)) return;
    event.preventDefault(); // the page would scroll
    const from = passed ?? learner.encode(model.layers, image).subarray(0, 2);
    point(page.ARROWS[event.key].map((each, k) => from[k] + each * (event.shiftKey ? 1 : 0.1)));
  });

  const listen = (name, kind, answer) => find(name).addEventListener(kind, () => {
    answer();
    remember();
  });
  listen("run", "click", () => (running ? pause() : run()));
  listen("step", "click", () => {
    [once, frames] = [true, 0];
    run();
  });
  listen("again", "click", () => {
    begin(model.seed + 1);
    run();
  });
  listen("speed", "change", () => {
    frames = 0;
    if (!running) run();
  });
  listen("beta", "input", () => {
    showBeta();
    since = Math.min(since, AGAIN);
    run();
  });

  function open() {
    page.show(); // first, as what is hidden has no size
    drawSprites();
    restore();
    addEventListener("hashchange", () => location.hash.includes("beta=") && restore());
    new IntersectionObserver(([{ isIntersecting }]) => {
      visible = isIntersecting;
      wake();
    }).observe(plane);
    new ResizeObserver(wake).observe(root);
    new MutationObserver(wake).observe(document.documentElement, { attributeFilter: ["data-theme"] });
  }

  // Who asked for less motion sees the still picture, and may ask for more.
  find("ask").hidden = !matchMedia("(prefers-reduced-motion: reduce)").matches;
  find("ask").firstElementChild.addEventListener("click", () => {
    find("ask").hidden = true;
    open();
    root.scrollIntoView({ block: "nearest" });
  });
  if (find("ask").hidden) open();
})();
