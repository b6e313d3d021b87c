"""Decoders: modules from codes (B, K) to the likelihood p(x | z), a `torch.distributions.Distribution` over images.

Any module whose call returns a distribution over images (C, H, W), with `log_prob`, `mean` and `sample`, can stand in
their place.
"""

from torch import Tensor, nn
from torch.distributions import Bernoulli as PixelBernoulli
from torch.distributions import Distribution, Independent


class Bernoulli(nn.Module):
    """The paper's decoder: every pixel is 1 with a probability of its own.

    With grey pixels its log-density is `objective.bernoulli_log_prob`, the paper's objective, but that of no
    distribution.

    Parameters
    ----------
    logits : module from codes (B, K) to logits (B, C, H, W)
    """

    def __init__(self, logits: nn.Module):
        super().__init__()
        self.logits = logits

    def forward(self, z: Tensor) -> Distribution:
        # without validation, which would refuse grey pixels
        return Independent(PixelBernoulli(logits=self.logits(z).float(), validate_args=False), 3, validate_args=False)
