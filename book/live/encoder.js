// The fully connected encoder of vaelib/models.py, both terms of its bill, and the bill's bound: what `objective.py` computes.
//
// The layers are read and multiplied as the decoder's are, so this needs decoder.js.
"use strict";

Object.assign(vae, (() => {
  // The encoder in a safetensors file (as base64): `encode`, from an image to the mean and the log-variance of q(z|x).
  function encoder(base64) {
    const { layers } = vae.read(base64);
    const find = (name) => layers.find((layer) => layer.name === `encoder.${name}`);
    const [mean, logVariance] = [find("mean"), find("log_variance")];
    const hidden = layers.filter((layer) => layer.name.startsWith("encoder.features"));
    function encode(image) {
      const relu = (x, layer) => vae.linear(layer, x).map((value) => Math.max(value, 0));
      const features = hidden.reduce(relu, Float32Array.from(image));
      return { mean: [...vae.linear(mean, features)], logVariance: [...vae.linear(logVariance, features)] };
    }
    return { encode };
  }

  const sum = (numbers) => numbers.reduce((total, each) => total + each, 0);

  // log p(x|z) in nats: the log of each pixel's probability, from its logit, which keeps it finite however sure it is.
  const logProb = (image, logits) => sum(
    Array.from(logits, (a, j) => image[j] * a - Math.max(a, 0) - Math.log1p(Math.exp(-Math.abs(a)))),
  );

  // KL(q(z|x) || p(z)) in nats, p(z) the standard normal distribution.
  const klDivergence = (mean, logVariance) => sum(
    mean.map((mu, k) => (mu ** 2 + Math.exp(logVariance[k]) - 1 - logVariance[k]) / 2),
  );

  return { encoder, logProb, klDivergence };
})());
