"""The parameters of a reproduction: one frozen dataclass per section of params.yaml, checked when it is read."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Interval
from pydantic import ConfigDict, with_config

from diffground.diffusion.sampling import Sampling
from diffground.grounding.config import GroundingConfig
from diffground.ranges import Fraction, NonEmptyStr, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from diffground.reproduction.params import read_params
from diffground.runtime.config import RuntimeConfig
from diffground.segmentation.config import SegmenterConfig
from diffground.vocabulary import Vocabulary, load_vocabulary


@dataclass(frozen=True)
class VocabularyConfig:
    """The categories, and which of them are unseen."""

    file: NonEmptyStr
    """A vocabulary file, see diffground.vocabulary_file. Built-in ones: pascal.yaml (20 categories), coco.yaml (79),
    sticker_coco.yaml (the 64 of COCO that the mini world has)."""
    pairs: Literal["file", "data", "data_val"]
    """Which categories appear together in prompts: those of the 'file', or those that appear in one real image of
    `data.train_list` ('data') or of `data.val_list` ('data_val')."""
    unseen: tuple[NonEmptyStr, ...]
    """Categories without labels, instead of the file's. Supplementary B.1 of the paper gives three splits."""
    seen: tuple[NonEmptyStr, ...]
    """Categories with labels, instead of the file's; empty: all that are not unseen."""

    def load(self) -> Vocabulary:
        """The file with this split; of 'data' and 'data_val' it has no pairs. Raises: UserError as load_vocabulary."""
        loaded = load_vocabulary(self.file, unseen=self.unseen, seen=self.seen)
        return loaded if self.pairs == "file" else loaded.with_pairs(())


@dataclass(frozen=True)
class DataConfig:
    """The real images; stage prepare_data puts them into data/real, in PASCAL VOC devkit layout."""

    source: Literal["none", "stickers", "voc", "coco", "folder"]
    """'stickers' composes the mini world, 'voc' copies two lists of a devkit, 'coco' converts COCO 2017 or a file in
    its format, 'folder' copies images and masks of a plain folder; 'none': there are no real images. Without validation
    images, segmenters are scored on every tenth synthetic image."""
    root: str
    """'voc': devkit folder with JPEGImages, SegmentationClass, ImageSets/Segmentation, its labels in the order of the
    vocabulary; 'coco': folder with train2017, val2017, annotations, or that of the images that your file names;
    'folder': folder with images and, optionally, masks, train.txt and val.txt, see diffground.data.folder."""
    train_list: NonEmptyStr
    """Name of the image list for training, without .txt; 'voc' and 'folder' read it, the others write it."""
    val_list: NonEmptyStr
    """Name of the image list for evaluation, without .txt; 'voc' and 'folder' read it, the others write it."""
    label_folder: NonEmptyStr
    """Folder of the training list's labels: SegmentationClass, or SegmentationClassAug for trainaug ('voc' only)."""
    annotations: NonEmptyStr
    """'instances', objects that may overlap, or 'panoptic', segments that do not; or a JSON file of instances with a
    name of its own, in `root` or anywhere: its images are for evaluation. Where the name holds '{split}', there are two
    files, with 'train' and 'val' in its place ('coco' only)."""
    image_size: PositiveInt
    """Side of a composed image, px ('stickers' only)."""
    num_train: NonNegativeInt
    """Training images: composed ('stickers'), or a random subset of train2017, 0 for all ('coco')."""
    num_val: NonNegativeInt
    """Validation images: composed ('stickers'), or a random subset of val2017, 0 for all ('coco')."""
    seed: NonNegativeInt
    """Seed of the composition ('stickers') or of the subsets ('coco')."""
    binary_label: str = ""
    """What 255 means in a mask that holds only 0 and 255 ('voc', 'folder'): a category, or 'ignored'. '': such a mask
    is an error. In a mask with other values, 255 is always ignored."""


@dataclass(frozen=True)
class PromptsConfig:
    """How many prompts of each kind (paper section 4.1)."""

    seed: NonNegativeInt
    """Seed of categories, pairs and sampling seeds."""
    num_train_one: NonNegativeInt
    """Training prompts with one seen category."""
    num_train_two: NonNegativeInt
    """Training prompts with a co-appearing pair of seen categories."""
    test_per_category: NonNegativeInt
    """Protocol I prompts per category (paper: 30)."""
    test_per_pair: NonNegativeInt
    """Protocol I prompts per co-appearing pair (paper: 5)."""
    test_min_per_group: NonNegativeInt
    """Protocol I prompts per group at least: more per category or pair of a group that would have fewer (paper: 0)."""
    synthesis_per_category: NonNegativeInt
    """Prompts per category of the synthetic segmentation set (paper: 500)."""
    synthesis_per_pair: NonNegativeInt
    """Prompts per co-appearing pair of the synthetic segmentation set (paper: 71)."""
    contexts: str
    """Longer prompts in the synthetic segmentation set (paper: Model E): '' for none, a bank of contexts (.yaml), a
    file with one prompt per line, or 'llm:<folder or hub id>'; prompts/README.md says how each is written."""
    context_frac: Fraction
    """Share of the prompts of the synthetic segmentation set that get a context, 0..1."""


@dataclass(frozen=True)
class GeneratorConfig:
    """The frozen text-to-image model and its sampler."""

    checkpoint: NonEmptyStr
    """A diffusers pipeline folder or hub id, or a single .safetensors file in the original layout."""
    image_size: PositiveInt
    """Side of a generated image, px."""
    sampler: Literal["ddim", "dpmsolver++"]
    """'ddim' (paper), or 'dpmsolver++' (2M), which needs fewer steps."""
    num_steps: PositiveInt
    """Steps of the sampler (paper: 50)."""
    timesteps: tuple[NonNegativeInt, ...]
    """With 'dpmsolver++': the `num_steps` timesteps that it visits, falling; empty: evenly spread."""
    guidance_interval: tuple[NonNegativeInt, ...]
    """First and last timestep, falling, at which there is guidance; empty: all (released code)."""
    guidance_scale: NonNegativeFloat
    """Classifier-free guidance (released code: 5)."""
    tapped_step: PositiveInt
    """Step whose latent is stored and whose features are read, counted from the clean end; 1 is the last (paper: 5)."""
    batch_size: PositiveInt
    """Images sampled at once; changes speed, not the images."""
    shard_size: PositiveInt
    """Samples per shard."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"]
    """'float32', 'bfloat16', 'float16'; 'auto' is bfloat16 where the device has instructions for it, else float32."""
    config_from: str = ""
    """For a single file: a diffusers pipeline folder of the same kind, which gives configs, tokenizer and scheduler."""
    loras: tuple[NonEmptyStr, ...] = ()
    """LoRA files (.safetensors) that are added to the weights: 'FILE', or 'FILE:SCALE' (default 1)."""

    @property
    def sampling(self) -> Sampling:
        """The settings above that a sample depends on."""
        return Sampling(**{field.name: getattr(self, field.name) for field in fields(Sampling)})


@dataclass(frozen=True)
class DetectorConfig:
    """The off-the-shelf detector whose masks are the oracle."""

    backend: Literal["torchvision", "transformers", "detectron2"]
    """'torchvision', 'transformers' (Mask2Former, MaskFormer) or 'detectron2' (Mask R-CNN; install it yourself)."""
    checkpoint: NonEmptyStr
    """Model folder; or the name of a torchvision weights entry; or a hub id ('transformers')."""
    score_threshold: Fraction
    """Instances below this score are not used, 0..1."""
    mask_threshold: Fraction
    """Pixel probability from which a pixel belongs to an instance, 0..1."""
    batch_size: PositiveInt
    """Images at once."""


@dataclass(frozen=True)
class InversionConfig:
    """Real images as samples for the grounding module, their latents by DDIM inversion (paper, table 7).

    Steps and tapped step are those of `generator`.
    """

    num_train: NonNegativeInt
    """Real training images: the first of data.train_list that show a seen category, all if there are fewer; 0: none."""
    num_val: NonNegativeInt
    """Real images to score grounding on: the first of data.val_list that show a used category, all if there are fewer;
    0: none, then grounding is scored only on generated images."""
    min_area_frac: Fraction
    """Share of the image, 0..1, from which a category that it shows is named in its prompt."""
    fixed_point_iterations: NonNegativeInt
    """Additional UNet passes per step, which make the inversion more exact; 0 is plain DDIM inversion."""
    batch_size: PositiveInt
    """Images inverted at once; changes speed, not the latents."""


@dataclass(frozen=True)
class SynthesisConfig:
    """The synthetic segmentation set."""

    redraw_below: Fraction
    """Images whose quality is lower, 0..1, are drawn again from other noise, and the best draw of each prompt is kept
    (see diffground.grounding.quality); 0: each image is drawn once."""
    max_draws: Annotated[int, Interval(ge=2, le=100)]
    """Draws per prompt at most."""


@dataclass(frozen=True)
class DaamConfig:
    """Baseline: cross-attention maps aggregated over steps, layers and heads."""

    num_calibration: PositiveInt
    """Training samples on which the threshold is chosen."""
    batch_size: PositiveInt
    """Images at once."""


@dataclass(frozen=True)
class Text2MaskConfig:
    """Baseline From Text to Mask (arXiv 2309.04109): label maps of real images whose categories are known."""

    num_images: NonNegativeInt
    """The first images of data.train_list that show a used category, or all if there are fewer; 0: none."""
    noise_frac: Fraction
    """How far an image is noised, as a share of the schedule, 0..1."""
    word_sizes: tuple[PositiveInt, ...]
    """Sides of the cross-attention layers that are averaged, px of the layer; empty: all layers."""
    num_noises: PositiveInt
    """Noise draws whose maps are averaged, one UNet pass per draw."""
    power: NonNegativeInt
    """How many times self-attention spreads a map; 0: not at all."""
    max_affinity_size: PositiveInt
    """Largest side of the self-attention used, px of its layer; memory grows as side^4."""
    threshold_from: Literal["generated", "fixed"]
    """'generated': the threshold fits the detector's masks of generated training images best, which show only
    seen categories; no label of a real image is used. 'fixed': it is `threshold`."""
    threshold: Annotated[float, Interval(gt=0, le=1)]
    """Score from which a pixel belongs to its likeliest category, above 0, to 1 ('fixed' only)."""
    num_calibration: PositiveInt
    """Generated training images on which the threshold is chosen ('generated' only)."""
    uncertain_band: Fraction
    """Pixels less than this from the threshold are ignored, 0..1; 0: none. With a CRF: from a probability of 0.5."""
    crf_iterations: NonNegativeInt
    """Mean-field iterations of a dense CRF over the maps (Krähenbühl & Koltun 2011); 0: no CRF."""
    crf_weight: NonNegativeFloat
    """Weight of the CRF's bilateral kernel; its kernels are normalised."""
    crf_position_frac: PositiveFloat
    """Standard deviation of the bilateral kernel in position, as a share of the image's longer side."""
    crf_colour_scale: PositiveFloat
    """Standard deviation of the bilateral kernel in colour, of 255."""
    batch_size: PositiveInt
    """Images at once; changes speed, not the label maps."""
    seed: NonNegativeInt
    """Seed of the noise; the noise of an image depends only on this and on its id."""


@dataclass(frozen=True)
class TrackingConfig:
    """MLflow."""

    enabled: bool
    """Log every stage."""
    uri: NonEmptyStr
    """Tracking store; the environment variable MLFLOW_TRACKING_URI overrides it."""
    experiment: NonEmptyStr
    """MLflow experiment name."""


@with_config(ConfigDict(extra="forbid", allow_inf_nan=False))
@dataclass(frozen=True)
class Params:
    """All of params.yaml."""

    profile: NonEmptyStr
    vocabulary: VocabularyConfig
    data: DataConfig
    prompts: PromptsConfig
    generator: GeneratorConfig
    detector: DetectorConfig
    inversion: InversionConfig
    grounding: GroundingConfig
    synthesis: SynthesisConfig
    daam: DaamConfig
    text2mask: Text2MaskConfig
    segmenter: SegmenterConfig
    runtime: RuntimeConfig
    tracking: TrackingConfig


def load_params(path: Path = Path("params.yaml")) -> Params:
    """Read and check `path`. Raises: UserError as diffground.reproduction.params.read_params does."""
    return read_params(path, Params)
