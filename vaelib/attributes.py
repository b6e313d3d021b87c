"""Attributes in the code space: told apart by logistic regression, and walked along by the decoder."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from . import progress
from .models import VAE


@dataclass(frozen=True)
class Attribute:
    """Where a binary attribute lies in the code space, and how well a linear classifier tells it.

    Parameters
    ----------
    name : such as "Smiling"
    direction : unit vector (K,), from the mean code of what lacks the attribute to that of what has it
    classifier : standardises codes (N, K), then weighs them; fitted to all of them
    accuracy, auc : on codes that the classifier had not seen: one value for each fold
    majority : the accuracy of always giving the commoner answer
    """

    name: str
    direction: Tensor
    classifier: Pipeline
    accuracy: Tensor
    auc: Tensor
    majority: float

    @property
    def standardised_direction(self) -> Tensor:
        """The classifier's weights w of *standardised* codes, as a unit vector (K,), none of the code space."""
        return _unit(self.classifier[-1].coef_[0])

    @property
    def gradient(self) -> Tensor:
        """The unit vector (K,) of the code space along which the classifier's score grows fastest, a filter.

        The score is w . (z - m) / s + b, with m and s the codes' means and standard deviations, so its gradient with
        respect to the code z is w / s. It is what tells the attribute, not what changes with it, and no way to walk: s
        is small where the model makes no use of a dimension, and there the decoder does not listen.
        """
        return _unit(self.classifier[-1].coef_[0] / self.classifier[0].scale_)

    def score(self, codes: Tensor) -> Tensor:
        """The classifier's log-odds, (N,), that the attribute is there, for codes (N, K)."""
        return torch.from_numpy(self.classifier.decision_function(_full(codes).numpy())).float()


def fit(codes: Tensor, labels: Tensor, names: Sequence[str], folds: int = 5) -> dict[str, Attribute]:
    """For each attribute a direction, and a logistic regression that is judged by cross-validation.

    The direction is the difference of the mean codes. It is zero along dimensions that the model does not use, since
    there all means are alike; and where the codes of either kind are normal with one covariance, it is this covariance
    times the best classifier's gradient: the pattern to a filter (Haufe et al., NeuroImage 87, 2014).

    Parameters
    ----------
    codes : Tensor of shape (N, K), such as posterior means of test images
    labels : Tensor of shape (N, A), bool, or 0 and 1, or -1 and 1
    names : of the A attributes
    folds : parts of the codes; each is classified by a regression fitted to the others

    Raises
    ------
    ValueError
        If the shapes do not fit, the labels have other values, an attribute is there, or is missing, in fewer codes
        than there are folds, or the codes do not vary, or their means with and without an attribute are equal.
    """
    codes, labels = _full(codes), torch.as_tensor(labels).cpu().to_dense()
    if codes.ndim != 2 or labels.shape != (len(codes), len(set(names))):
        raise ValueError(
            f"expected codes (N, K) and labels (N, A), a column for each of {len(names)} different names, "
            f"not {tuple(codes.shape)} and {tuple(labels.shape)} for {', '.join(names)}"
        )
    values = set(labels.flatten().tolist())
    if not (values <= {0, 1} or values <= {-1, 1}):
        raise ValueError(f"labels must be bool, 0 and 1, or -1 and 1; these have {[*values][:5]}")
    if not codes.isfinite().all() or not (codes != codes[:1]).any():
        raise ValueError("all codes are the same, or some not finite, so they hold no attribute: did the model learn?")
    x, found = codes.numpy(), {}
    columns = zip(names, (labels == 1).T.numpy(), strict=True)
    for name, column in progress.bar(columns, total=len(names), desc="attributes", delay=2):
        present = int(column.sum())
        if min(present, len(column) - present) < folds:
            raise ValueError(
                f"{name} is there in {present} of {len(column)} images; {folds} with it and {folds} without are "
                f"needed: take more images, or leave it out"
            )
        accuracy, auc = [], []
        for seen, unseen in StratifiedKFold(folds, shuffle=True, random_state=0).split(x, column):
            classifier = _classifier().fit(x[seen], column[seen])
            accuracy.append(classifier.score(x[unseen], column[unseen]))
            auc.append(roc_auc_score(column[unseen], classifier.decision_function(x[unseen])))
        majority = max(present, len(column) - present) / len(column)
        classifier = _classifier().fit(x, column)
        has = torch.from_numpy(column)
        difference = codes[has].mean(0) - codes[~has].mean(0)
        if not difference.any():
            raise ValueError(
                f"{name}: the mean codes with and without it are equal, so there is no direction; leave it out"
            )
        direction = _unit(difference)
        found[name] = Attribute(name, direction, classifier, torch.tensor(accuracy), torch.tensor(auc), majority)
    return found


@torch.no_grad()
def traverse(model: VAE, codes: Tensor, direction: Tensor, steps: Tensor) -> Tensor:
    """Images decoded along a direction, (N, T, C, H, W), values in [0, 1].

    Parameters
    ----------
    model : VAE in evaluation mode
    codes : Tensor of shape (N, K), where to start
    direction : Tensor of shape (K,)
    steps : Tensor of shape (T,), how far to go along it, in units of its length
    """
    codes, direction, steps = (each.to(model.device) for each in (codes, direction, steps))
    path = codes[:, None] + steps[:, None] * direction  # (N, T, K)
    return model.decode(path.flatten(0, 1)).unflatten(0, path.shape[:2])


def _classifier() -> Pipeline:
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))


def _full(codes: Tensor) -> Tensor:
    """Codes on the CPU, in single precision or better, for NumPy."""
    codes = torch.as_tensor(codes).detach().cpu()
    return codes.to(torch.promote_types(codes.dtype, torch.float32))


def _unit(vector) -> Tensor:
    vector = torch.as_tensor(vector, dtype=torch.float32)
    return vector / vector.norm()
