// The face lab: a face to start from, a slider for each attribute, and the code that they add up to, decoded.
"use strict";

(() => {
  const { attributes, images, codes } = live.celeba;
  const { decode, shape, latentDim } = vae.decoder(live["celeba-k64"]);
  const find = (name) => document.getElementById(`live-${name}`);

  let taken; // the code of the reader's photograph

  // Where the code is before any slider adds to it. A start that is unknown, as in a mistyped link, is the average.
  function face(start) {
    const [, kind, digits] = /^(random|image)-(\d{1,6})$/.exec(start) ?? [];
    const number = Number(digits);
    if (start === "photo" && taken) return { start, title: "Your photograph, reconstructed", code: taken };
    if (kind === "random") return { start, title: `Random face ${number}`, code: normal(latentDim, number) };
    if (kind === "image" && images.includes(number)) {
      return { start, title: `Test image ${number}, reconstructed`, code: codes[images.indexOf(number)] };
    }
    return { start: "average", title: "The average face", code: new Array(latentDim).fill(0) };
  }

  // Standard normal numbers, always the same for a seed.
  function normal(count, seed) {
    const uniform = page.random(seed);
    return Array.from({ length: count }, () => page.normal(uniform));
  }

  let origin = face("average");
  const sliders = attributes.map(addSlider);

  const update = page.eachFrame(() => {
    const code = [...origin.code];
    const moved = [];
    sliders.forEach(({ input, output }, i) => {
      const { name, spread, direction } = attributes[i];
      const steps = page.read(input);
      direction.forEach((each, k) => { code[k] += steps * spread * each; });
      output.textContent = page.signed(steps, 1);
      if (steps !== 0) moved.push(`${name.replaceAll("_", " ")} ${page.signed(steps, 1)}`);
    });
    page.paint(find("face"), decode(code), shape);
    find("caption").textContent = [origin.title, ...moved].join(", ");
  });

  function begin(start) {
    origin = face(start);
    for (const button of document.querySelectorAll("[data-start]")) {
      button.setAttribute("aria-pressed", origin.start.startsWith(button.dataset.start));
    }
    change();
  }

  // After any change a link that was shared before leads elsewhere, so what was said about it goes.
  function change() {
    find("message").textContent = "";
    update();
  }

  function addSlider({ name, accuracy, majority }) {
    const gained = 100 * (accuracy - majority);
    const row = document.createElement("li");
    row.innerHTML = `<label></label>
      <input type="range" min="-4" max="4" step="0.1" value="0" autocomplete="off">
      <output></output>
      <span>${(100 * accuracy).toFixed(0)}%, ${page.signed(gained, 1)}</span>`;
    const [label, input, output] = row.children;
    label.textContent = name.replaceAll("_", " "); // the names of other data may hold anything
    input.id = label.htmlFor = output.htmlFor = `live-${name}`;
    find(gained > 0 ? "held" : "lost").append(row);
    input.addEventListener("input", change);
    return { input, output };
  }

  // One thumbnail a frame, so that the page answers meanwhile.
  function addThumbnails(position = 0) {
    if (position === images.length) return;
    const { start, title, code } = face(`image-${images[position]}`);
    const button = document.createElement("button");
    button.dataset.start = start;
    button.setAttribute("aria-label", title);
    button.setAttribute("aria-pressed", origin.start === start);
    button.append(document.createElement("canvas"));
    page.paint(button.firstChild, decode(code), shape);
    button.addEventListener("click", () => begin(start));
    find("thumbnails").append(button);
    requestAnimationFrame(() => addThumbnails(position + 1));
  }

  function reset() {
    for (const { input } of sliders) input.value = 0;
    change();
  }

  // The link holds all there is to know: the start, and every slider that was moved; but of a photograph, nothing.
  async function share() {
    const moved = sliders.map(({ input }, i) => [attributes[i].name, input.value]).filter(([, value]) => Number(value));
    // Not `location.hash = ...`, which would be announced, taken for another address, and clear the message
    const start = origin.start === "photo" ? "average" : origin.start;
    history.replaceState(null, "", `#${new URLSearchParams([["start", start], ...moved])}`);
    const copied = await navigator.clipboard?.writeText(location.href).then(() => true, () => false);
    const face = start === origin.start ? "this face" : "the average face with these sliders, as your photograph stays here";
    find("message").textContent = `The address of this page now leads to ${face}${copied ? ", and is copied" : ""}.`;
  }

  function restore() {
    const wanted = new URLSearchParams(location.hash.slice(1));
    if (!wanted.has("start")) return; // it leads to a section of the page
    sliders.forEach(({ input }, i) => { input.value = wanted.get(attributes[i].name) ?? 0; });
    begin(wanted.get("start"));
  }

  find("average").addEventListener("click", () => begin("average"));
  find("random").addEventListener("click", () => begin(`random-${Math.floor(1e6 * Math.random())}`));
  find("seen").addEventListener("click", () => begin("photo"));
  find("reset").addEventListener("click", reset);
  find("share").addEventListener("click", share);
  addEventListener("hashchange", restore);
  begin(`image-${images[2]}`); // a clear face, unlike the average
  restore();
  addThumbnails();
  photo({ decode, shape }, (code) => {
    taken = code;
    begin("photo");
  });
  page.show();
})();
