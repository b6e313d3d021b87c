// A small VAE that learns, in plain JavaScript: forward, backward, and Adam.
//
// Four linear layers: pixels to hidden units, these to q (K means, then K log-variances), z to hidden units, these to
// pixels; a ReLU after each hidden one. Batches lie in memory as in PyTorch, image by image; numbers are in double
// precision. Prices are in nats: what is left to pay is minus the ELBO.
"use strict";

const learner = (() => {
  const [DECAY, DECAY_OF_SQUARES, TINY] = [0.9, 0.999, 1e-8]; // Adam's, as PyTorch has them

  // All layers, with weights drawn as PyTorch draws them: uniformly, within 1 / sqrt(inputs). `uniform` draws from [0, 1).
  function build(pixels, hidden, latentDim, uniform) {
    const sizes = [[pixels, hidden], [hidden, 2 * latentDim], [latentDim, hidden], [hidden, pixels]];
    return sizes.map(([inputs, outputs]) => {
      const draw = () => (2 * uniform() - 1) / Math.sqrt(inputs);
      const numbers = Float64Array.from({ length: outputs * (inputs + 1) }, draw);
      const [gradient, mean, square] = [0, 1, 2].map(() => new Float64Array(numbers.length));
      return { inputs, outputs, numbers, gradient, mean, square, updates: 0 }; // numbers: weights row by row, biases
    });
  }

  // y = W x + b for each image of a batch. Four sums at once: each addition waits for the one before.
  function linear({ inputs, outputs, numbers }, x, rectify = false) {
    const y = new Float64Array((x.length / inputs) * outputs);
    for (let start = 0, at = 0; start < x.length; start += inputs) {
      for (let row = 0, j = 0; row < outputs; row++) {
        let a = numbers[inputs * outputs + row];
        let b = 0;
        let c = 0;
        let d = 0;
        let i = start;
        for (; i + 3 < start + inputs; i += 4, j += 4) {
          a += numbers[j] * x[i];
          b += numbers[j + 1] * x[i + 1];
          c += numbers[j + 2] * x[i + 2];
          d += numbers[j + 3] * x[i + 3];
        }
        for (; i < start + inputs; i++, j++) a += numbers[j] * x[i];
        const sum = a + b + (c + d);
        y[at++] = rectify && sum < 0 ? 0 : sum;
      }
    }
    return y;
  }

  // From the loss's slopes in y to those in W and b, stored in the layer.
  function learn({ inputs, outputs, gradient }, x, slopes) {
    gradient.fill(0);
    for (let start = 0, at = 0; start < x.length; start += inputs) {
      for (let row = 0, j = 0; row < outputs; row++, j += inputs) {
        const slope = slopes[at++];
        if (slope === 0) continue; // of a unit that is off
        gradient[inputs * outputs + row] += slope;
        for (let i = 0; i < inputs; i++) gradient[j + i] += slope * x[start + i];
      }
    }
  }

  // From the slopes in y to those in x, x.
  function back({ inputs, outputs, numbers }, x, slopes) {
    const result = new Float64Array(x.length);
    for (let start = 0, at = 0; start < x.length; start += inputs) {
      for (let row = 0, j = 0; row < outputs; row++, j += inputs) {
        const slope = slopes[at++];
        if (slope === 0) continue;
        for (let i = 0; i < inputs; i++) result[start + i] += slope * numbers[j + i];
      }
    }
    return result;
  }

  const onlyActive = (slopes, hidden) => slopes.map((slope, i) => (hidden[i] > 0 ? slope : 0));

  // Means and log-variances of q for each image: K and K numbers, one image after the other.
  const encode = ([first, heads], x) => linear(heads, linear(first, x, true));
  // From codes to logits.
  const decode = ([, , second, last], z) => linear(last, linear(second, z, true));
  const sigmoid = (logit) => 1 / (1 + Math.exp(-logit));

  // From noise (K numbers an image) to all that the loss depends on, and both prices, averaged over the batch. Noise
  // that is all zeros makes of the code the mean: that is an autoencoder.
  function forward([first, heads, second, last], x, noise) {
    const hidden = linear(first, x, true);
    const q = linear(heads, hidden);
    const [count, K] = [x.length / first.inputs, second.inputs];
    const z = new Float64Array(count * K);
    let [reconstruction, kl] = [0, 0];
    for (let image = 0; image < count; image++) {
      for (let k = 0; k < K; k++) {
        const [mean, logVariance] = [q[2 * K * image + k], q[2 * K * image + K + k]];
        z[K * image + k] = mean + Math.exp(logVariance / 2) * noise[K * image + k];
        kl += 0.5 * (mean * mean + Math.exp(logVariance) - 1 - logVariance) / count;
      }
    }
    const answer = linear(second, z, true);
    const logits = linear(last, answer);
    for (let i = 0; i < x.length; i++) {
      const logit = logits[i];
      reconstruction += (Math.max(logit, 0) - logit * x[i] + Math.log1p(Math.exp(-Math.abs(logit)))) / count;
    }
    return { hidden, q, z, answer, logits, reconstruction, kl };
  }

  // The gradient of reconstruction + beta * kl, stored in the layers; returns both prices.
  function differentiate(layers, x, noise, beta) {
    const [first, heads, second, last] = layers;
    const { hidden, q, z, answer, logits, reconstruction, kl } = forward(layers, x, noise);
    const [count, K] = [x.length / first.inputs, second.inputs];
    const slopes = logits.map((logit, i) => (sigmoid(logit) - x[i]) / count);
    const inAnswer = onlyActive(back(last, answer, slopes), answer);
    const inCode = back(second, z, inAnswer);
    const inQ = new Float64Array(q.length);
    for (let image = 0; image < count; image++) {
      for (let k = 0; k < K; k++) {
        const [at, mean] = [2 * K * image + k, K * image + k];
        const variance = Math.exp(q[at + K]);
        inQ[at] = inCode[mean] + (beta * q[at]) / count;
        inQ[at + K] = 0.5 * (inCode[mean] * noise[mean] * Math.sqrt(variance) + (beta * (variance - 1)) / count);
      }
    }
    learn(last, answer, slopes);
    learn(second, z, inAnswer);
    learn(heads, hidden, inQ);
    learn(first, x, onlyActive(back(heads, hidden, inQ), hidden));
    return { reconstruction, kl };
  }

  // One update of all weights by Adam.
  function step(layers, x, noise, { beta, rate }) {
    const prices = differentiate(layers, x, noise, beta);
    for (const layer of layers) {
      const { numbers, gradient, mean, square } = layer;
      layer.updates++;
      const size = rate / (1 - DECAY ** layer.updates);
      const correction = Math.sqrt(1 - DECAY_OF_SQUARES ** layer.updates);
      for (let i = 0; i < numbers.length; i++) {
        mean[i] += (1 - DECAY) * (gradient[i] - mean[i]);
        square[i] += (1 - DECAY_OF_SQUARES) * (gradient[i] * gradient[i] - square[i]);
        numbers[i] -= (size * mean[i]) / (Math.sqrt(square[i]) / correction + TINY);
      }
    }
    return prices;
  }

  return { build, encode, decode, sigmoid, forward, step };
})();
