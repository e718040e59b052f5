"""The parameters of a reproduction: one frozen dataclass a section of params.yaml, checked when it is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from diffground.params import read_params


@dataclass(frozen=True)
class VocabularyConfig:
    """Which categories there are and which of them are unseen."""

    name: str
    """Table of categories: 'pascal' (20), 'coco' (79), 'sticker_coco' (the 64 of COCO that the mini world has)."""
    pairs: str
    """Which categories appear together in prompts: those of the 'table' (pascal has one), or those that share a real
    image of `data.train_list` ('data') or of `data.val_list` ('data_val')."""
    unseen: tuple[str, ...]
    """Categories without labels. Supplementary B.1 of the paper gives three splits."""
    seen: tuple[str, ...]
    """Categories with labels; empty: all that are not unseen."""


@dataclass(frozen=True)
class DataConfig:
    """The real images; stage prepare_data puts them into data/real, in PASCAL VOC devkit layout."""

    source: str
    """'stickers' composes the mini world, 'voc' copies two lists of a devkit, 'coco' converts COCO 2017."""
    root: str
    """'voc': devkit folder with JPEGImages, SegmentationClass, ImageSets/Segmentation, its labels in the order of the
    vocabulary; 'coco': folder with train2017, val2017, annotations."""
    train_list: str
    """Name of the image list for training, without .txt; 'voc' reads it, the others write it."""
    val_list: str
    """Name of the image list for evaluation, without .txt; 'voc' reads it, the others write it."""
    label_folder: str
    """Folder of the training list's labels: SegmentationClass, or SegmentationClassAug for trainaug ('voc' only)."""
    annotations: str
    """'instances', objects that may overlap, or 'panoptic', segments that do not ('coco' only)."""
    image_size: int
    """Side of a composed image, px ('stickers' only)."""
    num_train: int
    """Training images: composed ('stickers'), or a random subset of train2017, 0 for all ('coco')."""
    num_val: int
    """Validation images: composed ('stickers'), or a random subset of val2017, 0 for all ('coco')."""
    seed: int
    """Seed of the composition ('stickers') or of the subsets ('coco')."""


@dataclass(frozen=True)
class PromptsConfig:
    """How many prompts of each kind (paper section 4.1)."""

    seed: int
    """Seed of categories, pairs and sampling seeds."""
    num_train_one: int
    """Training prompts with one seen category."""
    num_train_two: int
    """Training prompts with a co-appearing pair of seen categories."""
    test_per_category: int
    """Protocol I prompts a category (paper: 30)."""
    test_per_pair: int
    """Protocol I prompts a co-appearing pair (paper: 5)."""
    synthesis_per_category: int
    """Prompts a category of the synthetic segmentation set (paper: 500)."""
    synthesis_per_pair: int
    """Prompts a co-appearing pair of the synthetic segmentation set (paper: 71)."""
    contexts: str
    """Longer prompts in the synthetic segmentation set (paper: Model E): '' for none, a bank of contexts (.yaml), a
    file with one prompt a line, or 'llm:<folder or hub id>'; prompts/README.md says how each is written."""
    context_frac: float
    """Share of the prompts of the synthetic segmentation set that get one, where there is one, 0..1."""


@dataclass(frozen=True)
class GeneratorConfig:
    """The frozen text-to-image model and its sampler."""

    checkpoint: str
    """A diffusers pipeline folder or hub id."""
    image_size: int
    """Side of a generated image, px."""
    num_steps: int
    """DDIM steps (paper: 50)."""
    guidance_scale: float
    """Classifier-free guidance (released code: 5)."""
    tapped_step: int
    """Step whose latent is stored and whose features are read, counted from the clean end; 1 is the last (paper: 5)."""
    batch_size: int
    """Images sampled at once; changes speed, not the images."""
    shard_size: int
    """Samples a shard."""
    dtype: str
    """'float32', 'bfloat16', 'float16'; 'auto' is bfloat16 where the device has instructions for it, else float32."""


@dataclass(frozen=True)
class DetectorConfig:
    """The off-the-shelf detector whose masks are the oracle."""

    backend: str
    """'torchvision', 'transformers' (Mask2Former, MaskFormer) or 'detectron2' (Mask R-CNN; install it yourself)."""
    checkpoint: str
    """Model folder; or the name of a torchvision weights entry; or a hub id ('transformers')."""
    score_threshold: float
    """Instances below this score are not used, 0..1."""
    mask_threshold: float
    """Pixel probability from which a pixel belongs to an instance, 0..1."""
    batch_size: int
    """Images at once."""


@dataclass(frozen=True)
class InversionConfig:
    """Real images as samples for the grounding module, their latents by DDIM inversion (paper, table 7).

    Steps and tapped step are those of `generator`.
    """

    num_train: int
    """Real training images: the first of data.train_list that show a seen category, all if there are fewer; 0: none."""
    num_val: int
    """Real images to score grounding on: the first of data.val_list that show a used category, all if there are fewer;
    0: none, then grounding is scored on generated images alone."""
    min_area_frac: float
    """Share of the image, 0..1, from which a category that it shows is named in its prompt."""
    fixed_point_iterations: int
    """UNet passes a step beyond the first, which bring the inversion closer to exact; 0 is plain DDIM inversion."""
    batch_size: int
    """Images inverted at once; changes speed, not the latents."""


@dataclass(frozen=True)
class GroundingConfig:
    """The grounding module and its training (paper section 3.3, DESIGN section 5)."""

    reduced_channels: tuple[int, ...]
    """Channels after the 1x1 reductions, coarse to fine, one a feature size (paper: 16, 32, 64, 128)."""
    embed_dim: int
    """d_e of queries, keys and values (paper: 512)."""
    num_layers: int
    """Transformer decoder layers (paper: 3)."""
    num_heads: int
    """Attention heads (paper: 8)."""
    ffn_dim: int
    """Hidden width of the feed-forward layers (paper: 2048)."""
    patch_size: int
    """Side of the patches of the fused map that are the visual tokens (paper: 4)."""
    tokens_at: str
    """'features' takes patches of the fused map (released code), 'image' of the map upsampled to image size (paper)."""
    branches: str
    """'conditional' reads the prompt's UNet pass, 'both' adds the unconditional one (released code)."""
    word_attention: bool
    """Also read the cross-attention maps of each category's words in the prompt (off in the paper)."""
    gain_timesteps: tuple[int, ...]
    """With word_attention: timesteps, 0..999, at which each word's denoising gain is read too; empty: not at all."""
    query_noise: float
    """Standard deviation of Gaussian noise on the text embeddings in training, relative to their own (paper: 0)."""
    text_drop: float
    """With word_attention: chance that a query's mask is made without its text in training, 0..1 (paper: 0)."""
    training_data: str
    """'sim': generated images with the detector's masks (paper); 'real': real training images of `inversion` with the
    labels of seen categories; 'both'."""
    training_type: str
    """'without_zero_masks' ignores categories that the detector did not find, 'normal' trusts it fully."""
    iterations: int
    """Optimizer steps (paper: 5,000)."""
    batch_size: int
    """Samples a step (paper: 8)."""
    gradient_accumulation_steps: int
    """Equal parts of each process's share of a batch, one after another: less memory; batch norm sees one part."""
    mixed_precision: str
    """What the module computes in while it is trained: 'none' (float32), 'bf16' or 'fp16' (GPU only)."""
    learning_rate: float
    """Adam (paper: 1e-4)."""
    weight_decay: float
    """Adam (paper: 1e-4)."""
    decay_frac: float
    """Share of the iterations at the end over which the learning rate falls linearly to 0, 0..1 (paper: 0)."""
    mask_threshold: float
    """Probability from which a pixel belongs to a category, 0..1."""
    seed: int
    """Seed of initialisation and sample order."""


@dataclass(frozen=True)
class DaamConfig:
    """Baseline: cross-attention maps aggregated over steps, layers and heads."""

    num_calibration: int
    """Training samples on which the threshold is chosen."""
    batch_size: int
    """Images at once."""


@dataclass(frozen=True)
class Text2MaskConfig:
    """Baseline From Text to Mask (arXiv 2309.04109): label maps of real images whose categories are known."""

    num_images: int
    """The first images of data.train_list that show a used category, or all if there are fewer; 0: none."""
    noise_frac: float
    """How far an image is noised, as a share of the schedule, 0..1."""
    word_sizes: tuple[int, ...]
    """Sides of the cross-attention layers that are averaged, px of the layer; empty: all layers."""
    num_noises: int
    """Noise draws, a UNet pass each, whose maps are averaged."""
    power: int
    """How often a map is spread by self-attention; 0: not at all."""
    max_affinity_size: int
    """Largest side of the self-attention used, px of its layer; memory grows as side^4."""
    threshold_from: str
    """'generated': the threshold fits the detector's masks of generated training images best, which show seen
    categories alone; no label of a real image enters. 'fixed': it is `threshold`."""
    threshold: float
    """From where on a pixel belongs to its likeliest category, above 0, to 1 ('fixed' only)."""
    num_calibration: int
    """Generated training images on which the threshold is chosen ('generated' only)."""
    uncertain_band: float
    """Pixels less than this from the threshold are ignored, 0..1; 0: none. With a CRF, from even odds."""
    crf_iterations: int
    """Mean-field iterations of a dense CRF over the maps (Krähenbühl & Koltun 2011); 0: no CRF."""
    crf_weight: float
    """Weight of the CRF's bilateral kernel; its kernels are normalised."""
    crf_position_frac: float
    """Reach of the bilateral kernel, a standard deviation, as a share of the image's longer side."""
    crf_colour_scale: float
    """Standard deviation of the bilateral kernel in colour, of 255."""
    batch_size: int
    """Images at once; changes speed, not the label maps."""
    seed: int
    """Seed of the noise; an image's own depends on this and on its id alone."""


@dataclass(frozen=True)
class SegmenterConfig:
    """MaskFormer and its training (paper section 4.1)."""

    training_sets: tuple[str, ...]
    """One MaskFormer each: 'synthetic' (Models A to C of the paper's table 2), 'synthetic_and_real_seen' (D and E),
    'real_seen_only' (without this method), 'text2mask' (the baseline's label maps; it is told which categories, unseen
    ones too, a real image shows), 'real_all' (upper bound)."""
    backbone: str
    """Folder or hub id of a transformers ResNet."""
    image_size: int
    """Side of the square training crop and evaluation input, px (paper: 224)."""
    matching: str
    """'bipartite' (MaskFormer), or 'fixed': query i is for label i (MaskFormer-fixed), with far fewer iterations."""
    hidden_dim: int
    """Width of pixel decoder and transformer decoder (MaskFormer: 256)."""
    num_queries: int
    """Mask queries (MaskFormer: 100); with fixed matching there is one a label, whatever this is."""
    decoder_layers: int
    """Transformer decoder layers (MaskFormer: 6)."""
    ffn_dim: int
    """Hidden width of the decoder's feed-forward layers (MaskFormer: 2048)."""
    iterations: int
    """Optimizer steps (paper: 40,000)."""
    batch_size: int
    """Images a step (paper: 8)."""
    gradient_accumulation_steps: int
    """Equal parts of each process's share of a batch, one after another: less memory; batch norm sees one part."""
    mixed_precision: str
    """What the model computes in while it is trained: 'none' (float32), 'bf16' or 'fp16' (GPU only)."""
    learning_rate: float
    """AdamW (paper: 1e-4)."""
    backbone_lr_factor: float
    """Learning rate of the pretrained backbone relative to that of the rest (MaskFormer: 0.1)."""
    weight_decay: float
    """AdamW (paper: 1e-4)."""
    seed: int
    """Seed of initialisation and sample order."""


@dataclass(frozen=True)
class RuntimeConfig:
    """Where it runs. Nothing here changes a result beyond floating-point tolerance."""

    device: str
    """'auto' takes a GPU when there is one; else 'cpu', 'cuda', 'cuda:1'."""
    num_threads: int
    """CPU threads of torch, shared out among the workers."""
    num_workers: int
    """Processes of a sharded stage and of Protocol I on the CPU; a GPU has one."""
    backend: str
    """'local': processes of this machine, on one GPU if there is one. 'ray': actors of a Ray cluster, one for each of
    its GPUs; the repository lies on a filesystem that its machines share."""
    ray_address: str
    """With 'ray': 'auto' or 'host:port' of the cluster that this machine belongs to; '': one on this machine, for the
    stage."""
    num_training_processes: int
    """Processes, a GPU each, that share the batches of a training; 0: as many GPUs as there are and fit the batch, one
    process on the CPU. Dropout, which the segmenter has, draws anew for another number."""
    checkpoint_every_s: float
    """A training that is killed loses at most so many seconds."""


@dataclass(frozen=True)
class TrackingConfig:
    """MLflow."""

    enabled: bool
    """Log every stage."""
    uri: str
    """Tracking store; the environment variable MLFLOW_TRACKING_URI goes before it."""
    experiment: str
    """MLflow experiment name."""


@dataclass(frozen=True)
class Params:
    """All of params.yaml."""

    profile: str
    vocabulary: VocabularyConfig
    data: DataConfig
    prompts: PromptsConfig
    generator: GeneratorConfig
    detector: DetectorConfig
    inversion: InversionConfig
    grounding: GroundingConfig
    daam: DaamConfig
    text2mask: Text2MaskConfig
    segmenter: SegmenterConfig
    runtime: RuntimeConfig
    tracking: TrackingConfig


def load_params(path: Path = Path("params.yaml")) -> Params:
    """Read and check `path`. Raises: UserError as diffground.params.read_params does."""
    return read_params(path, Params)
