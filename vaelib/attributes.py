"""Attributes in the code space: classify them by logistic regression, and decode codes along their directions."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_validate
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from . import progress
from .checks import attempt
from .models import VAE
from .objective import whole_number


@dataclass(frozen=True)
class Attribute:
    """The direction of a binary attribute in the code space, and the scores of a linear classifier.

    Parameters
    ----------
    name : such as "Smiling"
    direction : unit vector (K,), from the mean code without the attribute to the mean code with it
    classifier : standardises codes (N, K), then weighs them; fitted to all codes
    accuracy, auc : on codes that the classifier wasn't fitted to, one value per fold
    majority : baseline accuracy of always predicting the majority class
    """

    name: str
    direction: Tensor
    classifier: Pipeline
    accuracy: Tensor
    auc: Tensor
    majority: float

    @property
    def standardised_direction(self) -> Tensor:
        """The classifier's weights w for standardised codes, as a unit vector (K,).

        This isn't a direction of the code space.
        """
        return _unit(self.classifier[-1].coef_[0])

    @property
    def gradient(self) -> Tensor:
        """The direction, a unit vector (K,) of the code space, in which the classifier's score grows fastest.

        The score is w . (z - m) / s + b, with m and s the codes' means and standard deviations. Its gradient with
        respect to the code z is therefore w / s. This is a filter: it detects the attribute, but doesn't show how codes
        change with it. Don't traverse along it. Where the model doesn't use a dimension, s is small and the decoder
        doesn't react.
        """
        return _unit(self.classifier[-1].coef_[0] / self.classifier[0].scale_)

    def score(self, codes: Tensor) -> Tensor:
        """Compute the classifier's log-odds, (N,), that the attribute is present, for codes (N, K)."""
        return torch.from_numpy(self.classifier.decision_function(_full(codes).numpy())).float()


def fit(codes: Tensor, labels: Tensor, names: Sequence[str], folds: int = 5) -> dict[str, Attribute]:
    """Fit a direction and a cross-validated logistic regression for each attribute.

    The direction is the difference of the mean codes. It is zero along dimensions that the model doesn't use, because
    all means agree there. If the codes of both classes are normal with the same covariance, the direction is this
    covariance times the gradient of the best classifier. It is then the pattern that belongs to this filter (Haufe et
    al., NeuroImage 87, 2014).

    Parameters
    ----------
    codes : Tensor of shape (N, K), such as posterior means of test images
    labels : Tensor of shape (N, A), bool, or 0 and 1, or -1 and 1
    names : of the A attributes
    folds : number of subsets for cross-validation; each is classified by a regression fitted to the others

    Raises
    ------
    ValueError
        If the shapes don't fit, labels have other values, or codes don't vary. Also if an attribute is present or
        absent in fewer codes than there are folds, or the mean codes with and without it are equal.
    """
    codes, labels, folds = _full(codes), _tensor(labels), whole_number("folds", folds, least=2)
    names = [str(each) for each in names] if isinstance(names, Iterable) else []
    if codes.ndim != 2 or labels.shape != (len(codes), len(names)) or len(set(names)) < len(names):
        shapes = f"{tuple(codes.shape)} and {tuple(labels.shape)} for {', '.join(names)}"
        raise ValueError(f"expected codes (N, K), labels (N, A) and as many different names, not {shapes}")
    values = set(labels.flatten().tolist())
    if not (values <= {0, 1} or values <= {-1, 1}):
        raise ValueError(f"labels must be bool, 0 and 1, or -1 and 1; these have {[*values][:5]}")
    if codes.is_complex() or not codes.isfinite().all() or not (codes != codes[:1]).any():
        raise ValueError(
            "all codes are equal, or some aren't finite or real, so they hold no attribute: did the model learn?"
        )
    x, found = codes.numpy(), {}
    columns = zip(names, (labels == 1).T.numpy(), strict=True)
    for name, column in progress.bar(columns, total=len(names), desc="attributes", delay=2):
        has = torch.from_numpy(column)
        difference = codes[has].mean(0) - codes[~has].mean(0)
        counts = int(has.sum()), int((~has).sum())
        if min(counts) < folds or not difference.any():
            what = f"{counts[0]} images with it and {counts[1]} without it don't define a direction"
            raise ValueError(f"{name}: {what}; expected at least {folds} of each, with different mean codes")
        classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        parts = StratifiedKFold(folds, shuffle=True, random_state=0)
        scores = cross_validate(classifier, x, column, cv=parts, scoring=("accuracy", "roc_auc"), error_score="raise")
        accuracy, auc = (torch.tensor(scores[f"test_{kind}"].tolist()) for kind in ("accuracy", "roc_auc"))
        found[name] = Attribute(name, _unit(difference), classifier.fit(x, column), accuracy, auc, max(counts) / len(x))
    return found


@torch.no_grad()
def traverse(model: VAE, codes: Tensor, direction: Tensor, steps: Tensor) -> Tensor:
    """Decode images along a direction, (N, T, C, H, W), with values in [0, 1].

    Parameters
    ----------
    model : VAE in evaluation mode
    codes : start of each path, Tensor of shape (N, K)
    direction : Tensor of shape (K,)
    steps : positions along the direction, in units of its length, Tensor of shape (T,)

    Raises
    ------
    ValueError
        If the shapes don't fit.
    """
    codes, direction, steps = (_tensor(each).to(model.device) for each in (codes, direction, steps))
    if codes.ndim != 2 or direction.shape != codes.shape[1:] or steps.ndim != 1:
        raise ValueError(f"expected (N, K), (K,) and (T,), not {codes.shape}, {direction.shape} and {steps.shape}")
    path = codes[:, None] + steps[:, None] * direction  # (N, T, K)
    return model.decode(path.flatten(0, 1)).unflatten(0, path.shape[:2])


def _tensor(values: object) -> Tensor:
    return attempt("conversion of codes or labels to a tensor", torch.as_tensor, values).detach().cpu().to_dense()


def _full(codes: Tensor) -> Tensor:
    """Convert codes to single precision or better on the CPU, for NumPy."""
    return (codes := _tensor(codes)).to(torch.promote_types(codes.dtype, torch.float32))


def _unit(vector) -> Tensor:
    vector = torch.as_tensor(vector, dtype=torch.float64)  # float32's norm may overflow
    return nn.functional.normalize(vector / vector.abs().max(), dim=0).float()
