"""Dataset-wide pixel counts, streamed: what every IoU of this project is computed from."""

from __future__ import annotations

import numpy as np

from diffground.data.palette import IGNORE


class ConfusionMatrix:
    """Counts of (true label, predicted label) over all scored pixels; labels are mutually exclusive.

    `counts` int64 (K, K): rows are true labels, columns predicted ones.
    """

    def __init__(self, *, num_labels: int) -> None:
        self.counts = np.zeros((num_labels, num_labels), dtype=np.int64)

    def update(self, *, label: np.ndarray, prediction: np.ndarray) -> None:
        """Add one image or batch.

        Args:
            label: integers of any shape, 0..K-1 or IGNORE.
            prediction: integers of the same shape, 0..K-1 wherever the label is scored.
        Raises: ValueError when shapes differ or a scored value is out of range.
        """
        if label.shape != prediction.shape:
            raise ValueError(f"label and prediction must have one shape, got {label.shape} and {prediction.shape}")
        num_labels = len(self.counts)
        scored = label != IGNORE
        true, predicted = label[scored].astype(np.int64), prediction[scored].astype(np.int64)
        for name, values in (("label", true), ("prediction", predicted)):
            if values.size and not 0 <= values.min() <= values.max() < num_labels:
                raise ValueError(f"{name} must be in 0..{num_labels - 1}, got {values.min()}..{values.max()}")
        pairs = np.bincount(true * num_labels + predicted, minlength=num_labels**2)
        self.counts += pairs.reshape(num_labels, num_labels)  # (K, K)

    @property
    def intersection(self) -> np.ndarray:
        """Pixels right, int64 (K,)."""
        return np.diagonal(self.counts).copy()

    @property
    def union(self) -> np.ndarray:
        """Pixels that are or are predicted as each label, int64 (K,)."""
        return self.target + self.counts.sum(axis=0) - self.intersection

    @property
    def target(self) -> np.ndarray:
        """True pixels of each label, int64 (K,)."""
        return self.counts.sum(axis=1)


class MaskCounts:
    """Counts of binary masks by category; masks of one image may overlap.

    `intersection`, `union`, `target` map a category to its pixels over all images added.
    """

    def __init__(self) -> None:
        self.intersection: dict[str, int] = {}
        self.union: dict[str, int] = {}
        self.target: dict[str, int] = {}

    def update(self, *, category: str, prediction: np.ndarray, target: np.ndarray) -> None:
        """Add the masks of `category` in one image, bool, one shape.

        Raises: ValueError when the shapes differ or a mask is not boolean.
        """
        if prediction.shape != target.shape or prediction.dtype != bool or target.dtype != bool:
            raise ValueError(
                f"masks of '{category}' must be boolean and of one shape, "
                f"got {prediction.dtype} {prediction.shape} and {target.dtype} {target.shape}"
            )
        for counts, mask in (
            (self.intersection, prediction & target),
            (self.union, prediction | target),
            (self.target, target),
        ):
            counts[category] = counts.get(category, 0) + int(mask.sum())

    def __add__(self, other: MaskCounts) -> MaskCounts:
        """The counts of both."""
        total = MaskCounts()
        for name in ("intersection", "union", "target"):
            counts = getattr(total, name)
            for part in (self, other):
                for category, pixels in getattr(part, name).items():
                    counts[category] = counts.get(category, 0) + pixels
        return total
