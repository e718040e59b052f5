"""Normalised mutual information: how far two ways to divide an image's pixels agree, whatever the parts are called."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import entr


def nmi_of_counts(counts: np.ndarray) -> float:
    """2 I(A; B) / (H(A) + H(B)), 0..1, from joint counts of two labellings, integers (K_a, K_b).

    The counts may be an image's or, as ConfusionMatrix.counts, a dataset's. Two labellings of one part each agree: 1;
    a labelling of one part says nothing about one of several: 0 (both as scikit-learn).
    """
    total = counts.sum()
    if not total:
        return 1.0
    joint = counts / total
    # three entropies: scikit-learn's mutual_info_score needs two of them as well, and 17 times the time per image
    entropy_a, entropy_b = entr(joint.sum(axis=1)).sum(), entr(joint.sum(axis=0)).sum()
    if entropy_a == 0 and entropy_b == 0:
        return 1.0
    information = entropy_a + entropy_b - entr(joint).sum()
    return float(np.clip(2 * information / (entropy_a + entropy_b), 0, 1))


def joint_counts(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Counts of (label in a, label in b), int64 (K_a, K_b) in the order of the values that occur; one shape, integers.

    Raises: ValueError when the shapes differ.
    """
    if a.shape != b.shape:
        raise ValueError(f"labellings must have one shape, got {a.shape} and {b.shape}")
    values_a, rows = np.unique(a, return_inverse=True)
    values_b, columns = np.unique(b, return_inverse=True)
    shape = len(values_a), len(values_b)
    pairs = np.bincount(rows.ravel() * shape[1] + columns.ravel(), minlength=shape[0] * shape[1])
    return pairs.reshape(shape)


def division_by(masks: Sequence[np.ndarray]) -> np.ndarray:
    """The division of an image by masks, bool (H, W) each, that may overlap: int64 (H, W), one value for each set of
    masks that a pixel is in, 0 for none."""
    division = np.zeros(masks[0].shape, dtype=np.int64)
    for mask in masks:
        _, division = np.unique(2 * division + mask, return_inverse=True)
    return division.reshape(masks[0].shape)


class NmiScores:
    """NMI of predicted with true divisions, image by image.

    An image whose truth has one part has nothing to agree on: it is counted in `num_undivided` and not scored.
    """

    def __init__(self) -> None:
        self.per_image: list[float] = []
        """0..1, in the order of the images added."""
        self.num_undivided = 0

    @property
    def mean(self) -> float | None:
        """Mean over the scored images; None when there is none."""
        return float(np.mean(self.per_image)) if self.per_image else None

    def update(self, *, targets: Sequence[np.ndarray], predictions: Sequence[np.ndarray]) -> None:
        """Add an image's masks, bool (H, W) each; those of one side may overlap."""
        counts = joint_counts(division_by(targets), division_by(predictions))
        if len(counts) < 2:
            self.num_undivided += 1
        else:
            self.per_image.append(nmi_of_counts(counts))
