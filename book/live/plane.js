// The latent plane, and the latent line: a point is moved over the test images' codes, and its digit decoded.
"use strict";

(() => {
  const LIMIT = 4; // of the codes that can be reached; plane.md says so too
  const ARROWS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowDown: [1, -1], ArrowUp: [1, 1] };
  const NEIGHBOURS = 10;
  const { labels, codes } = live.mnist;

  const along = (z) => (z + LIMIT) / (2 * LIMIT); // from a code to a fraction of the map's width
  const back = (fraction) => (2 * fraction - 1) * LIMIT;

  // One model's part of the page. Its sliders hold the code; `place` says where on the map an image belongs, as
  // fractions of width and height, and `scenery` draws what lies behind the images.
  function explore(K, place, scenery) {
    const root = document.getElementById(`live-k${K}`);
    const [digit, map] = root.querySelectorAll("canvas");
    const [marker, caption] = [root.querySelector(".live-marker"), root.querySelector(".live-caption")];
    const sliders = [...root.querySelectorAll("input")];
    const { decode, shape } = vae.decoder(live[`mnist-k${K}`]);

    const update = page.eachFrame(() => {
      const code = sliders.map(page.read);
      page.paint(digit, decode(code), shape);
      caption.textContent = `z = (${code.map((z) => page.signed(z, 2)).join(", ")}). ${neighbours(K, code)}`;
      marker.style.left = `${100 * along(code[0])}%`;
      if (K === 2) marker.style.top = `${100 * (1 - along(code[1]))}%`;
    });

    function follow(event) {
      if (!event.buttons) return;
      const box = map.getBoundingClientRect();
      const [x, y] = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
      const code = [back(x), back(1 - y)];
      sliders.forEach((slider, i) => { slider.value = code[i]; });
      update();
    }

    function press(event) {
      if (!(event.key in ARROWS)) return;
      event.preventDefault(); // the page would scroll
      const [axis, direction] = ARROWS[event.key];
      sliders[axis].value = Number(sliders[axis].value) + direction * (event.shiftKey ? 1 : 0.1);
      update();
    }

    function drawMap() {
      const { context, width, height } = page.sharpen(map);
      context.strokeStyle = context.fillStyle = getComputedStyle(map).color;
      scenery(context, width, height);
      context.globalAlpha = 0.7;
      labels.forEach((label, i) => {
        const [x, y] = place(codes[K][i], label);
        context.fillStyle = page.COLOURS[label];
        context.fillRect(x * width - 1.5, y * height - 1.5, 3, 3);
      });
    }

    sliders.forEach((slider) => slider.addEventListener("input", update));
    map.addEventListener("pointerdown", (event) => {
      map.setPointerCapture(event.pointerId);
      follow(event);
    });
    map.addEventListener("pointermove", follow);
    if (map.tabIndex === 0) map.addEventListener("keydown", press); // the line has its slider instead
    new ResizeObserver(drawMap).observe(map);
    new MutationObserver(drawMap).observe(document.documentElement, { attributeFilter: ["data-theme"] });
    update();
  }

  // Which digits the nearest test images show, the most frequent first.
  function neighbours(K, code) {
    const distance = codes[K].map((each) => Math.hypot(...each.map((z, i) => z - code[i])));
    const nearest = [...distance.keys()].sort((i, j) => distance[i] - distance[j]).slice(0, NEIGHBOURS);
    const counts = page.COLOURS.map((_, label) => nearest.filter((i) => labels[i] === label).length);
    const shown = [...counts.keys()].filter((label) => counts[label]).sort((i, j) => counts[j] - counts[i]);
    return `The ten nearest test images show: ${shown.map((label) => `${label} (${counts[label]})`).join(", ")}.`;
  }

  // Both axes, and circles at one, two and three standard deviations of the prior.
  function circles(context, width, height) {
    context.globalAlpha = 0.35;
    context.beginPath();
    for (let radius = 1; radius <= 3; radius++) {
      context.moveTo(width * along(radius), height / 2);
      context.arc(width / 2, height / 2, radius / (2 * LIMIT) * width, 0, 2 * Math.PI);
    }
    context.moveTo(0, height / 2);
    context.lineTo(width, height / 2);
    context.moveTo(width / 2, 0);
    context.lineTo(width / 2, height);
    context.stroke();
  }

  // A row for each digit, and a line at zero.
  function rows(context, width, height) {
    context.font = "bold 12px sans-serif";
    context.textBaseline = "middle";
    page.COLOURS.forEach((_, label) => context.fillText(label, 2, (label + 0.5) / 10 * height));
    context.globalAlpha = 0.35;
    context.beginPath();
    context.moveTo(width / 2, 0);
    context.lineTo(width / 2, height);
    context.stroke();
  }

  const legend = document.querySelector(".live-legend");
  page.COLOURS.forEach((colour, label) => {
    const item = document.createElement("li");
    item.textContent = label;
    item.style.setProperty("--colour", colour);
    legend.append(item);
  });

  page.show(); // first, as a hidden map has no size
  explore(2, ([x, y]) => [along(x), 1 - along(y)], circles);
  explore(1, ([x], label) => [along(x), (label + 0.5) / 10], rows);
})();
