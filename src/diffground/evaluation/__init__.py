"""Scores: streaming counts, mIoU, Protocol I, zero-shot segmentation."""
