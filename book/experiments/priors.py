"""Priors that fit a VAE's codes, for claim B6 and the page `beyond/priors`.

`python -m book.experiments.verdicts B6` trains and measures the models. Four priors are fitted to the codes of training
images afterwards. The fifth, a VampPrior, is trained jointly with another VAE.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import cast

import torch
import zuko
from sklearn.mixture import GaussianMixture
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, MixtureSameFamily, MultivariateNormal

from vaelib import decoders, encoders, evaluation, models, objective, priors
from vaelib.distributions import DiagonalNormal
from vaelib.seeding import seeded

STEPS = 2000  # of Adam, each with 256 codes
Builder = Callable[..., models.VAE]
best_sigma = partial(models.mlp, decoder=decoders.OptimalGaussian)


def vamp(image_shape: models.Shape, latent_dim: int, builder: Builder = models.build) -> models.VAE:
    """Build a VAE whose prior is a VampPrior with 100 pseudo-inputs."""
    model = builder(image_shape, latent_dim)
    model.prior = priors.Vamp(cast(nn.Module, model.encoder), image_shape, 100)
    return model


MODELS: dict[str, tuple[str, int, Builder, Builder]] = {  # data, K, model with N(0, I), model with a VampPrior
    "digits, K = 16": ("mnist", 16, models.build, vamp),
    "digits, K = 64": ("mnist", 64, models.build, vamp),
    "faces, K = 64": ("celeba", 64, models.build, vamp),
    "digits, K = 16, best σ": ("mnist", 16, best_sigma, partial(vamp, builder=best_sigma)),
}
JUDGED = [*MODELS][:3]  # by the rules of B6. The page also shows the best σ, which Dai and Wipf use


def posterior(model: models.VAE, images: Tensor) -> DiagonalNormal:
    """Return the posteriors of images, a batch of distributions."""
    return DiagonalNormal(*evaluation.encode(model, images))


def codes_of(q: DiagonalNormal, count: int) -> Tensor:
    """Draw codes of random images, with replacement, (count, K)."""
    some = torch.randint(len(q.mean), (count,))
    return objective.reparameterize(q.mean[some], q.log_variance[some])


def gaussian(q: DiagonalNormal) -> Distribution:
    """Fit one Gaussian with all covariances."""
    codes = q.sample()
    return MultivariateNormal(codes.mean(0), codes.T.cov())


def mixture(q: DiagonalNormal) -> Distribution:
    """Fit mixtures of 3, 10 and 30 Gaussians, and return the one with the highest density of held-out codes."""
    codes = q.sample()[torch.randperm(len(q.mean))[:10_000]]
    left_out, kept = codes[::10], codes[torch.arange(len(codes)) % 10 > 0]
    make = partial(GaussianMixture, tol=0.01, max_iter=200, random_state=0)
    best = max((make(parts).fit(kept) for parts in (3, 10, 30)), key=lambda each: each.score(left_out))
    weights, means, covariances = (
        torch.tensor(each).float() for each in (best.weights_, best.means_, best.covariances_)
    )
    return MixtureSameFamily(Categorical(weights), MultivariateNormal(means, covariances))


def flow(q: DiagonalNormal, steps: int = STEPS) -> Distribution:
    """Fit a masked autoregressive flow."""
    module = zuko.flows.MAF(q.event_shape[0], transforms=5, hidden_features=(128, 128))
    _descend(module, lambda z: -module().log_prob(z), q, steps)
    return module()


def second_vae(q: DiagonalNormal, steps: int = STEPS) -> Distribution:
    """Fit a VAE whose images are the codes. Dai and Wipf, arXiv:1903.05789."""
    K = q.event_shape[0]

    def gaussian_network() -> nn.Module:
        layers = nn.Linear(K, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU()
        return encoders.Gaussian(nn.Sequential(*layers), 256, K)

    vae = models.VAE(gaussian_network(), gaussian_network(), priors.Standard(K), (K,))
    _descend(vae, lambda z: objective.negative_elbo(vae(z), 0), q, steps)
    return priors.Marginal(vae, 50)


def _descend(module: nn.Module, loss: Callable[[Tensor], Tensor], q: DiagonalNormal, steps: int) -> None:
    optimizer = torch.optim.Adam(module.parameters())
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(codes_of(q, 256)).mean().backward()
        optimizer.step()
        rate.step()
    module.eval().requires_grad_(False)


Fit = Callable[..., Distribution]
FITTED: dict[str, Fit] = {"one Gaussian": gaussian, "mixture": mixture, "flow": flow, "second VAE": second_vae}


def sources(model: models.VAE, q: DiagonalNormal) -> Mapping[str, Callable[[int], Tensor]]:
    """Return functions that draw a number of codes: from N(0, I), from each fitted prior, and of training images."""
    drawn = {"N(0, I)": model.prior()}
    for name, fit in FITTED.items():
        with seeded(0):
            drawn[name] = fit(q)
    from_priors = {name: partial(_sample, prior) for name, prior in drawn.items()}
    return from_priors | {"codes of training images": partial(codes_of, q)}


def _sample(prior: Distribution, count: int) -> Tensor:
    return prior.sample(torch.Size([count]))


def nearest(codes: Tensor, known: Tensor) -> Tensor:
    """Compute the distance from each code to the nearest of the known codes, (N,)."""
    return torch.cat([torch.cdist(part, known).amin(1) for part in codes.split(500)])
