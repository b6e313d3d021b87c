// The face lab's way in for a photograph of the reader's: from a file or the camera, framed, shrunk to the model's size,
// and encoded. It stays in the page; from the book's folder alone comes the encoder, once there is something to encode.
"use strict";

// `begin` is called with each new code; `decode` makes images of that `shape` from codes.
function photo({ decode, shape }, begin) {
  const [, ROWS, COLUMNS] = shape;
  const LONGEST = 1024; // side in pixels; what is longer is shrunk by the browser first
  const START = { height: 128 / 218, top: 60 / 218 }; // of the height: CelebA's crop in its aligned photographs
  const KEYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const find = (name) => document.getElementById(`live-${name}`);
  const [picture, outline, size] = [find("picture"), find("frame"), find("size")];
  const context = picture.getContext("2d", { willReadFrequently: true });
  const frame = { left: 0, top: 0, width: 0, height: 0 }; // in pixels of the picture
  const folder = document.currentScript.src; // of all these scripts
  let [stream, encoder] = [null, null];

  function say(message) {
    find("photo-message").textContent = message;
  }

  // A script element, since a page from disk may not fetch. Asked for once, unless it did not come.
  function load() {
    encoder ??= new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = new URL("celeba-k64-mean.js", folder);
      script.onload = () => resolve(vae.convolutionalEncoder(live["celeba-k64-mean"]));
      script.onerror = () => {
        encoder = null;
        reject(new Error("The encoder could not be loaded."));
      };
      document.head.append(script);
    });
    return encoder;
  }

  // Draw an image or a video, on white as the package does, and return whether it has another shape than before.
  function show(source, width, height) {
    const scale = Math.min(1, LONGEST / Math.max(width, height));
    const [wide, high] = [width, height].map((side) => Math.max(1, Math.round(scale * side)));
    const other = picture.width !== wide || picture.height !== high;
    if (other) Object.assign(picture, { width: wide, height: high });
    context.imageSmoothingQuality = "high";
    context.fillStyle = "white";
    context.fillRect(0, 0, wide, high);
    context.drawImage(source, 0, 0, wide, high);
    find("stage").hidden = false;
    return other;
  }

  const largest = () => Math.min(picture.height, (picture.width * ROWS) / COLUMNS);

  // Where CelebA has its faces; the frame's place in the picture is the reader's from then on.
  function start() {
    resize((100 * START.height * picture.height) / largest());
    place((picture.width - frame.width) / 2, START.top * picture.height);
  }

  function place(left, top) {
    frame.left = Math.min(Math.max(left, 0), picture.width - frame.width);
    frame.top = Math.min(Math.max(top, 0), picture.height - frame.height);
    for (const [side, whole] of [["left", picture.width], ["top", picture.height], ["width", picture.width], ["height", picture.height]]) {
      outline.style[side] = `${(100 * frame[side]) / whole}%`;
    }
    update();
  }

  // Around its middle, or with its upper left corner where it is.
  function resize(percent, fixed = 0.5) {
    size.value = percent;
    const height = (page.read(size) / 100) * largest();
    const [more, wider] = [height - frame.height, (height * COLUMNS) / ROWS - frame.width];
    Object.assign(frame, { width: frame.width + wider, height });
    place(frame.left - fixed * wider, frame.top - fixed * more);
  }

  // The mean of the pixels below each of the image's, those at its edges in part; whole numbers, as the data has them.
  function shrink({ data, width }) {
    const area = ROWS * COLUMNS;
    const image = new Float32Array(3 * area);
    const step = frame.height / ROWS;
    for (let pixel = 0; pixel < area; pixel++) {
      const left = frame.left + step * (pixel % COLUMNS);
      const top = frame.top + step * Math.floor(pixel / COLUMNS);
      const sums = [0, 0, 0];
      for (let y = Math.floor(top); y < top + step; y++) {
        const high = Math.min(y + 1, top + step) - Math.max(y, top);
        for (let x = Math.floor(left); x < left + step; x++) {
          const part = high * (Math.min(x + 1, left + step) - Math.max(x, left));
          for (let colour = 0; colour < 3; colour++) sums[colour] += part * data[4 * (y * width + x) + colour];
        }
      }
      sums.forEach((sum, colour) => { image[colour * area + pixel] = Math.round(sum / step ** 2) / 255; });
    }
    return image;
  }

  const update = page.eachFrame(async () => {
    try {
      const encode = await load();
      const image = shrink(context.getImageData(0, 0, picture.width + 1, picture.height + 1)); // or a rounded edge is out
      const code = encode(image);
      page.paint(find("crop"), image, shape);
      page.paint(find("seen").firstElementChild, decode(code), shape);
      begin([...code]);
    } catch (error) {
      say(error.message);
    }
  });

  async function open([file]) {
    if (!file) return;
    stop();
    try {
      const image = await createImageBitmap(file);
      show(image, image.width, image.height);
      say("");
      start();
    } catch {
      say("This browser cannot read that file as a picture.");
    }
  }

  // What the camera sees, until its button is pressed again, is framed and encoded as it comes.
  async function watch() {
    if (stream) return stop();
    const video = Object.assign(document.createElement("video"), { muted: true, playsInline: true });
    try {
      video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "user" } });
      await video.play();
    } catch {
      return say("This page has no camera to look through: there is none, or the browser does not allow it here.");
    }
    stop(); // of another that was allowed meanwhile
    stream = video.srcObject;
    if (!find("photo").open) return stop();
    find("camera").textContent = "take the picture";
    say("");
    (function follow() {
      if (stream !== video.srcObject) return;
      if (show(video, video.videoWidth, video.videoHeight)) start();
      else update();
      requestAnimationFrame(follow);
    })();
  }

  function stop() {
    stream?.getTracks().forEach((track) => track.stop());
    stream = null;
    find("camera").textContent = "use the camera";
  }

  // Dragged by its corner the frame grows or shrinks; by any other point it moves.
  function drag(event) {
    const scale = picture.width / picture.clientWidth;
    const from = { x: event.clientX, y: event.clientY, ...frame };
    const corner = event.target === find("corner");
    outline.setPointerCapture(event.pointerId);
    outline.onpointermove = ({ clientX, clientY }) => {
      const [right, down] = [scale * (clientX - from.x), scale * (clientY - from.y)];
      if (corner) resize((100 * (from.height + Math.max(down, (right * ROWS) / COLUMNS))) / largest(), 0);
      else place(from.left + right, from.top + down);
    };
    outline.onpointerup = outline.onpointercancel = () => { outline.onpointermove = null; };
  }

  function press(event) {
    if (!(event.key in KEYS)) return;
    const [right, down] = KEYS[event.key].map((each) => (each * frame.height) / (event.shiftKey ? 8 : ROWS));
    place(frame.left + right, frame.top + down);
    event.preventDefault();
  }

  find("file").addEventListener("change", ({ target }) => open(target.files));
  find("camera").addEventListener("click", watch);
  find("photo").addEventListener("toggle", ({ target }) => target.open || stop());
  size.addEventListener("input", () => resize(size.value));
  outline.addEventListener("pointerdown", drag);
  outline.addEventListener("keydown", press);
}
