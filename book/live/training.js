// A VAE that learns while one looks on. `learner` computes, `course` has the data; here is what is shown of it.
//
// All is done on the page's own thread, in slices shorter than a frame, so that it answers meanwhile.
"use strict";

(() => {
  const { SIDE, PIXELS, train, test, testLabels, testImages, select } = course;
  const SLICE = 10; // milliseconds of training in a frame
  const DRAW_EVERY = 4; // frames; in these nothing is trained
  const TILES = 14; // of the decoded plane, in each direction
  const BETAS = [0, 0.1, 0.3, 1, 2, 3, 5];
  const RATES = [0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1];
  const root = document.getElementById("training");
  const find = (name) => document.getElementById(`training-${name}`);

  const shown = page.COLOURS.flatMap((_, digit) => test.filter((i) => live.digits.labels[i] === digit).slice(0, 2));
  const shownImages = select(shown);
  const references = bounds();

  let seed = 0;
  let state;
  let running = false;

  // Between what prices the reconstruction of test images moves: perfect copies, as grey pixels are never certain; and
  // the mean training image for all of them.
  function bounds() {
    const cost = (x, p) => -(x && x * Math.log(p)) - (x < 1 && (1 - x) * Math.log(1 - p));
    const all = select(train);
    const mean = Array.from({ length: PIXELS }, (_, j) => train.reduce((sum, _, n) => sum + all[n * PIXELS + j], 0) / train.length);
    const price = (guess) => testImages.reduce((sum, x, i) => sum + cost(x, guess(x, i)), 0) / test.length;
    return [
      { price: price((x) => x), name: "perfect copies" },
      { price: price((_, i) => Math.min(1 - 1e-6, Math.max(1e-6, mean[i % PIXELS]))), name: "one image for all" },
    ];
  }

  const noise = (count) => course.noise(state, count, find("noise").checked);

  // New weights. The same ones, and the same batches and noise, whenever the page is opened.
  function begin() {
    state = { ...course.begin(++seed), sums: [0, 0], summed: 0, every: 20, history: [] };
    measure();
    if (!running) say("Not trained yet: its weights are random. Press “Start”.");
    draw();
  }

  function update() {
    const settings = { beta: BETAS[find("beta").value], rate: RATES[find("rate").value], noisy: find("noise").checked };
    const { reconstruction, kl } = course.update(state, course.next(state), settings);
    state.summed++;
    state.sums = [state.sums[0] + reconstruction, state.sums[1] + kl];
    if (state.updates % state.every === 0) measure();
  }

  // Both prices of the test images, and of the training images since the last time. The list is thinned as it grows.
  function measure() {
    const { reconstruction, kl } = learner.forward(state.layers, testImages, noise(test.length));
    const trained = state.sums.map((sum) => (state.summed ? sum / state.summed : NaN));
    state.history.push({ updates: state.updates, train: trained, test: [reconstruction, kl] });
    [state.sums, state.summed] = [[0, 0], 0];
    if (state.history.length > 400) {
      state.every *= 2;
      state.history = state.history.filter((each) => each.updates % state.every === 0);
    }
  }

  const say = (text) => { find("message").textContent = text; };

  function stop(text = "Paused.") {
    running = false;
    find("start").textContent = "Start";
    say(text);
  }

  function start() {
    running = true;
    find("start").textContent = "Pause";
    say("Learning. Settings may be changed meanwhile.");
    requestAnimationFrame(() => frame(0));
  }

  function frame(number) {
    if (!running) return;
    if (number % DRAW_EVERY === 0) {
      draw();
    } else {
      const end = performance.now() + SLICE;
      while (performance.now() < end) update();
    }
    requestAnimationFrame(() => frame(number + 1));
  }

  // What is seen

  function draw() {
    const q = learner.encode(state.layers, testImages);
    const codes = testLabels.map((_, i) => [q[4 * i], q[4 * i + 1]]);
    const limit = reach(codes);
    drawPlane(codes, limit);
    drawDecoded(limit);
    drawCopies();
    const last = state.history.at(-1);
    drawChart("reconstruction", 0, [10, 30], references);
    const dearest = Math.max(4, ...state.history.map((each) => each.test[1]));
    drawChart("kl", 1, [0, 2 ** Math.ceil(Math.log2(dearest))], []);
    find("updates").textContent = state.updates.toLocaleString("en");
    find("sum-name").textContent = find("noise").checked
      ? "−ELBO of test digits, in nats" : "both, for test digits: without ε no ELBO";
    find("sum").textContent = (last.test[0] + last.test[1]).toFixed(2);
  }

  // How far the maps go in each direction: to 4, or to the double of that and so on, if fewer than 98% of the codes fit.
  function reach(codes) {
    const sizes = codes.map((code) => Math.max(...code.map(Math.abs))).sort((a, b) => a - b);
    const size = sizes[Math.floor(0.98 * sizes.length)];
    return 4 * 2 ** Math.max(0, Math.min(6, Math.ceil(Math.log2(size / 4))));
  }

  function drawPlane(codes, limit) {
    const canvas = find("plane");
    const { context, width, place } = course.scenery(canvas, limit);
    Object.assign(context, { font: "11px sans-serif", textAlign: "center", textBaseline: "middle" });
    context.fillStyle = getComputedStyle(canvas).color;
    for (const z of [-limit / 2, limit / 2]) {
      const [x, y] = place([z, z]);
      const text = page.signed(z, 0);
      context.fillText(text, x, width - 9);
      context.fillText(text, 12, y);
    }
    context.font = `bold ${width < 220 ? 9 : 11}px sans-serif`;
    codes.forEach((code, i) => {
      context.fillStyle = page.COLOURS[testLabels[i]];
      context.fillText(testLabels[i], ...place(code));
    });
  }

  function drawDecoded(limit) {
    const at = (tile) => ((2 * tile + 1) / TILES - 1) * limit;
    const codes = Array.from({ length: TILES * TILES }, (_, i) => [at(i % TILES), -at(Math.floor(i / TILES))]);
    const images = learner.decode(state.layers, Float64Array.from(codes.flat())).map(learner.sigmoid);
    mosaic(find("decoded"), TILES, images);
  }

  function drawCopies() {
    const { logits } = learner.forward(state.layers, shownImages, noise(shown.length));
    const images = new Float64Array(2 * shownImages.length);
    images.set(shownImages);
    images.set(logits.map(learner.sigmoid), shownImages.length);
    mosaic(find("copies"), shown.length, images);
  }

  // Images row by row, a dark pixel around each.
  function mosaic(canvas, columns, images) {
    const [cell, rows] = [SIDE + 1, images.length / PIXELS / columns];
    const [width, height] = [columns * cell + 1, rows * cell + 1];
    const picture = new Float64Array(width * height);
    images.forEach((value, i) => {
      const [image, pixel] = [Math.floor(i / PIXELS), i % PIXELS];
      const [top, left] = [1 + cell * Math.floor(image / columns), 1 + cell * (image % columns)];
      picture[(top + Math.floor(pixel / SIDE)) * width + left + (pixel % SIDE)] = value;
    });
    page.paint(canvas, picture, [1, height, width]);
  }

  // One price over the updates: of training images a thin line, of test images a thick one.
  function drawChart(name, index, [low, high], levels) {
    const canvas = find(name);
    const { context, width, height } = page.sharpen(canvas);
    const style = getComputedStyle(canvas);
    const [LEFT, BOTTOM, TOP, RIGHT] = [24, 18, 8, 6];
    const end = Math.max(400, state.updates);
    const x = (updates) => LEFT + (updates / end) * (width - LEFT - RIGHT);
    const y = (price) => TOP + ((high - price) / (high - low)) * (height - TOP - BOTTOM);
    Object.assign(context, { font: "11px sans-serif", textAlign: "right", textBaseline: "middle", lineJoin: "round" });
    context.strokeStyle = context.fillStyle = style.color;
    for (let i = 0; i <= 4; i++) {
      const price = low + (i / 4) * (high - low);
      context.fillText(price, LEFT - 5, y(price));
      line([[LEFT, y(price)], [width - RIGHT, y(price)]], 0.5, 0.4);
    }
    context.fillText(`${end.toLocaleString("en")} updates`, width - RIGHT, height - 6);
    context.textAlign = "left";
    context.fillText("0", LEFT, height - 6);
    context.textAlign = "right";
    for (const { price, name: text } of levels) {
      context.fillText(`${text}: ${price.toFixed(1)}`, width - RIGHT, y(price) - 8);
      context.setLineDash([2, 3]);
      line([[LEFT, y(price)], [width - RIGHT, y(price)]], 1, 1);
      context.setLineDash([]);
    }
    context.strokeStyle = style.getPropertyValue("--line");
    const [{ test: first }] = state.history;
    context.textAlign = "left";
    if (first[index] > high) context.fillText(`↑ ${first[index].toFixed(1)}`, LEFT + 4, TOP + 6);
    context.beginPath();
    context.rect(LEFT, TOP, width, y(low) - TOP);
    context.clip(); // the first prices are beyond the edge
    for (const [set, thickness] of [["train", 1], ["test", 2.5]]) {
      const points = state.history.filter((each) => Number.isFinite(each[set][index]));
      line(points.map((each) => [x(each.updates), y(each[set][index])]), thickness, 1);
    }
    const last = state.history.at(-1);
    const [trained, tested] = [last.train[index], last.test[index]].map((price) => price.toFixed(2));
    find(`${name}-price`).textContent = Number.isFinite(last.train[index]) ? `train ${trained}, test ${tested}` : `test ${tested}`;

    function line(points, thickness, alpha) {
      Object.assign(context, { lineWidth: thickness, globalAlpha: alpha });
      context.beginPath();
      points.forEach((point) => context.lineTo(...point));
      context.stroke();
      context.globalAlpha = 1;
    }
  }

  // What the reader does

  function showSettings() {
    for (const [name, values] of [["beta", BETAS], ["rate", RATES]]) {
      const value = values[page.read(find(name))];
      find(name).setAttribute("aria-valuetext", value);
      find(`${name}-value`).textContent = value;
    }
  }

  find("start").addEventListener("click", () => (running ? stop() : start()));
  find("step").addEventListener("click", () => {
    stop("Paused, after one update more.");
    update();
    measure();
    draw();
  });
  find("new").addEventListener("click", begin);
  for (const slider of root.querySelectorAll("input")) slider.addEventListener("input", showSettings);
  const redraw = page.eachFrame(draw);
  new MutationObserver(redraw).observe(document.documentElement, { attributeFilter: ["data-theme"] });
  page.show(); // first, as what is hidden has no size
  showSettings();
  begin();
  new ResizeObserver(redraw).observe(root);
})();
