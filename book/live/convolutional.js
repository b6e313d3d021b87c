// The convolutional encoder of vaelib/models.py, as far as the mean of q(z|x): an image goes in, a code comes out.
//
// Four times a convolution, a batch norm and a ReLU; then one linear layer. Tensors are read, and rows multiplied, as the
// decoder's are, so this needs decoder.js.
"use strict";

Object.assign(vae, (() => {
  // Kernels of 4 x 4, stride 2, padding 1: every output pixel is a linear layer's answer to a patch of all channels, and
  // height and width are halved. The batch norm knows mean and variance of each channel from the training.
  function block(convolution, norm, x, height, width) {
    const channels = x.length / (height * width);
    const scale = norm.weight.map((weight, channel) => weight / Math.sqrt(norm.variance[channel] + 1e-5));
    const [rows, columns, outputs] = [height / 2, width / 2, convolution.bias.length];
    const y = new Float32Array(outputs * rows * columns);
    for (let row = 0, pixel = 0; row < rows; row++) {
      for (let column = 0; column < columns; column++, pixel++) {
        const patch = cut(x, channels, height, width, 2 * row - 1, 2 * column - 1);
        vae.linear(convolution, patch).forEach((value, channel) => {
          const normed = (value - norm.mean[channel]) * scale[channel] + norm.bias[channel];
          y[channel * rows * columns + pixel] = Math.max(normed, 0);
        });
      }
    }
    return y;
  }

  // The patch of 4 x 4 with its corner at (top, left), of every channel; zero beyond the edges.
  function cut(x, channels, height, width, top, left) {
    const patch = new Float32Array(16 * channels);
    for (let channel = 0, p = 0; channel < channels; channel++) {
      for (let row = top; row < top + 4; row++) {
        for (let column = left; column < left + 4; column++, p++) {
          const inside = row >= 0 && row < height && column >= 0 && column < width;
          if (inside) patch[p] = x[(channel * height + row) * width + column];
        }
      }
    }
    return patch;
  }

  // The encoder in a safetensors file (as base64): from all pixels of an image, 0 to 1, to the mean of its posterior.
  function convolutionalEncoder(base64) {
    const { layers, image_shape: shape } = vae.read(base64);
    const features = layers.filter((layer) => layer.name.startsWith("encoder.features"));
    const mean = layers.find((layer) => layer.name === "encoder.mean");
    return (image) => {
      let x = Float32Array.from(image);
      let [, height, width] = shape;
      for (let n = 0; n < features.length; n += 2) {
        x = block(features[n], features[n + 1], x, height, width);
        [height, width] = [height / 2, width / 2];
      }
      return vae.linear(mean, x);
    };
  }

  return { convolutionalEncoder };
})());
