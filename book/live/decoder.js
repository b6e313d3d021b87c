// The decoders of vaelib/models.py in plain JavaScript: a code goes in, an image comes out.
//
// Both architectures are chains of learned layers with a ReLU between any two, and a sigmoid at the end. Images lie in
// memory as in PyTorch: channel by channel, row by row. Neither decoder normalises batches, so nothing here does.
"use strict";

const vae = (() => {
  // All 65,536 numbers of half precision: a sign, five bits of exponent, ten of fraction. (No weight is infinite.)
  const HALF = Float32Array.from({ length: 1 << 16 }, (_, bits) => {
    const exponent = (bits >> 10) & 31;
    const fraction = (bits & 1023) / 1024;
    const size = exponent ? 2 ** (exponent - 15) * (1 + fraction) : 2 ** -14 * fraction;
    return bits >> 15 ? -size : size;
  });

  // A safetensors file: the length of its header, the header in JSON, then the bytes of all tensors.
  function read(base64) {
    const text = atob(base64);
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    const start = 8 + Number(new DataView(bytes.buffer).getBigUint64(0, true));
    const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, start)));
    const tensor = (name) => {
      const [from, to] = header[name].data_offsets;
      const halves = new Uint16Array(bytes.buffer, start + from, (to - from) / 2);
      const values = new Float32Array(halves.length);
      for (let i = 0; i < halves.length; i++) values[i] = HALF[halves[i]];
      return values;
    };
    const inOrder = new Intl.Collator("en", { numeric: true }); // features.9 before features.10
    const names = Object.keys(header).filter((name) => name.endsWith(".weight")).sort(inOrder.compare);
    const layers = names.map((name) => ({
      name: name.replace(".weight", ""),
      weight: tensor(name),
      bias: tensor(name.replace("weight", "bias")),
      spatial: header[name].shape.length === 4, // a convolution, or a transposed one
      ...(header[name].shape.length === 1 && { // a batch norm
        mean: tensor(name.replace("weight", "running_mean")),
        variance: tensor(name.replace("weight", "running_var")),
      }),
    }));
    return { layers, ...JSON.parse(header.__metadata__.vaelib) };
  }

  // y = W x + b, with W stored row by row: a row for each output.
  function linear({ weight, bias }, x) {
    const y = new Float32Array(bias.length);
    for (let row = 0, j = 0; row < y.length; row++) {
      let sum = bias[row];
      for (let i = 0; i < x.length; i++, j++) sum += weight[j] * x[i];
      y[row] = sum;
    }
    return y;
  }

  // Kernels of 4 x 4, stride 2, padding 1: every pixel of the input adds a patch of 4 x 4 to every output channel,
  // and height and width double. W is stored as inputs x outputs x 4 x 4.
  function transposedConvolution({ weight, bias }, x, height, width) {
    const pixels = height * width;
    const patches = new Float32Array(16 * bias.length);
    const y = new Float32Array(4 * pixels * bias.length);
    bias.forEach((value, channel) => y.fill(value, 4 * pixels * channel, 4 * pixels * (channel + 1)));
    for (let pixel = 0; pixel < pixels; pixel++) {
      sumKernels(patches, weight, x, pixel, pixels);
      addPatches(y, patches, 2 * Math.floor(pixel / width) - 1, 2 * (pixel % width) - 1, 2 * height, 2 * width);
    }
    return y;
  }

  // What one pixel adds to all outputs: the input channels' kernels, weighted by the channels' values there. After a
  // ReLU about half of these are zero, and skipped; four kernels at a time, as reading and writing the sums is slow.
  function sumKernels(patches, weight, x, pixel, pixels) {
    const active = [];
    let silent = 0;
    for (let channel = 0; channel * pixels < x.length; channel++) {
      if (x[channel * pixels + pixel] === 0) silent = channel;
      else active.push(channel);
    }
    while (active.length % 4) active.push(silent); // there is one, as the number of channels is a multiple of 4
    patches.fill(0);
    for (let n = 0; n < active.length; n += 4) {
      const four = active.slice(n, n + 4);
      const [a, b, c, d] = four.map((channel) => x[channel * pixels + pixel]);
      const [i, j, k, l] = four.map((channel) => channel * patches.length);
      for (let p = 0; p < patches.length; p++) {
        patches[p] += a * weight[i + p] + b * weight[j + p] + c * weight[k + p] + d * weight[l + p];
      }
    }
  }

  // Add each channel's patch to y with its corner at (top, left); what falls beyond the edges is lost.
  function addPatches(y, patches, top, left, height, width) {
    const channels = y.length / (height * width);
    for (let channel = 0, p = 0; channel < channels; channel++) {
      for (let row = top; row < top + 4; row++) {
        const start = (channel * height + row) * width;
        for (let column = left; column < left + 4; column++, p++) {
          if (row >= 0 && row < height && column >= 0 && column < width) y[start + column] += patches[p];
        }
      }
    }
  }

  const sigmoid = (logit) => 1 / (1 + Math.exp(-logit));

  // The decoder in a safetensors file (as base64): `shape` of its images, `latentDim`, and, from a code, all pixels'
  // `logits`, or their probabilities (`decode`).
  function decoder(base64) {
    const { layers, image_shape: shape, latent_dim: latentDim } = read(base64);
    const doublings = layers.filter((layer) => layer.spatial).length;
    function logits(code) {
      let x = Float32Array.from(code);
      let [height, width] = [shape[1] >> doublings, shape[2] >> doublings];
      layers.forEach((layer, number) => {
        if (number > 0) x = x.map((value) => Math.max(value, 0));
        if (layer.spatial) {
          x = transposedConvolution(layer, x, height, width);
          [height, width] = [2 * height, 2 * width];
        } else {
          x = linear(layer, x);
        }
      });
      return x;
    }
    return { shape, latentDim, logits, decode: (code) => logits(code).map(sigmoid) };
  }

  return { read, linear, sigmoid, decoder };
})();
