"""A folder in the layout of COCO 2017, made by hand."""

import json

import numpy as np
from PIL import Image

from diffground.vocabulary import load_vocabulary

SIZE = 16
NAMES = [*load_vocabulary("coco").detector_names.values(), "mouse"]


def write_split(root, split, num, *, seed):
    """`num` images with a person on the left and another category, in turn, on the right."""
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    (root / split).mkdir()
    images, annotations = [], []
    for i in range(1, num + 1):
        pixels = np.random.default_rng([seed, i]).integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / split / f"{i:012d}.jpg")
        images.append({"id": i, "file_name": f"{i:012d}.jpg", "height": SIZE, "width": SIZE})
        for k, (name, x) in enumerate([("person", 0), (NAMES[i % len(NAMES)], 8)]):
            annotations.append(
                {
                    "id": 10 * i + k,
                    "image_id": i,
                    "category_id": NAMES.index(name) + 1,
                    "iscrowd": 0,
                    "segmentation": [[x, 2, x + 6, 2, x + 6, 12, x, 12]],
                }
            )
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": i + 1, "name": name} for i, name in enumerate(NAMES)],
    }
    (root / f"annotations/instances_{split}.json").write_text(json.dumps(content))
