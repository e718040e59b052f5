"""The model card of a trained segmenter."""

from __future__ import annotations

from diffground.segmentation.config import SegmenterConfig

_DATA = {
    "synthetic": "images of the generator with label maps of the grounding module; no real image",
    "synthetic_and_real_seen": "images of the generator with label maps of the grounding module, and real images in "
    "which the pixels of unseen categories are ignored",
    "real_seen_only": "real images in which the pixels of unseen categories are ignored",
    "text2mask": "real images with label maps made from their image-level labels, of unseen categories too, by the "
    "baseline From Text to Mask (arXiv 2309.04109)",
    "real_all": "real images with all labels (upper bound)",
}
_CODE = {
    "transformers": ("", ""),
    "official": (
        ";\n  network, matching and loss are the authors' MaskFormer on detectron2",
        ", here also that of the authors' MaskFormer\n  (CC BY-NC 4.0 when it was archived)",
    ),
}
"""segmenter.backend -> what the recipe and the licence say of it."""


def segmenter_card(
    name: str, *, config: SegmenterConfig, num_images: int, unseen: tuple[str, ...], final_loss: float
) -> str:
    """README.md of models/segmenter/<name>."""
    code, licence = _CODE[config.backend]
    return f"""# MaskFormer, trained on {name}

- Data: {_DATA[name]}; {num_images} images.
- Unseen categories: {", ".join(unseen) or "none"}.
- Recipe: {config.iterations} iterations of {config.batch_size} images at {config.image_size} px, AdamW at
  {config.learning_rate}, weight decay {config.weight_decay}, seed {config.seed}; backbone from {config.backbone}{code}.
- Training loss at the end: {final_loss:.3f}. Scores on real images: reports/metrics/evaluate_zs3.json.
- Labels: 0 background, i the i-th of `categories` in config.json.
- Limits: it knows these categories only, and learned what its training images show.
- Licence: that of the code{licence}; the data's own terms hold for what was learned from it.
"""
