"""The public API: prompts in, images with a mask per word out; or a real image in, its masks out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch.nn.functional as F
from PIL import Image

from diffground.baselines.daam import sample_with_maps
from diffground.data.images import ImageLike, read_image
from diffground.diffusion.checkpoint import generator_id, load_pipeline
from diffground.diffusion.generator import Generator
from diffground.diffusion.inversion import invert_latents
from diffground.diffusion.sampling import Sampling
from diffground.diffusion.textual_inversion import add_textual_inversion, spell_out
from diffground.errors import UserError
from diffground.grounded_output import GroundedOutput, GroundedSample
from diffground.grounding.checkpoint import Defaults, GroundingSpec, load_grounding, read_defaults
from diffground.grounding.prediction import Grounder, likeliest_word
from diffground.prompts import check_words, token_spans
from diffground.runtime.batches import in_batches, naming_what_to_lower
from diffground.runtime.device import pick_device, pick_dtype
from diffground.vocabulary import photograph_of

TextualInversions = Mapping[str, str | Path] | Sequence[str | Path | tuple[str | None, str | Path]]
"""Token -> file of its embedding; or files, which name their token themselves, or pairs of a token and a file."""


@dataclass
class GroundedPipeline:
    """A frozen text-to-image model with a grounding module: images with a mask for each word.

    Example, in a clone of the repository:

    >>> from diffground import GroundedPipeline
    >>> pipe = GroundedPipeline.from_pretrained("models/mini/diffusion", grounding="models/mini/grounding")
    >>> out = pipe(["a photograph of a dog and a cat"] * 2, words=["dog", "cat"], seeds=[0, 1])
    >>> out.images[0].size, out.masks.shape, out.probs.dtype.name
    ((128, 128), (2, 2, 128, 128), 'float32')
    >>> out[0].overlay().size
    (128, 128)
    >>> pipe.segment(out.images[0].resize((200, 150)), words=["dog"]).masks.shape
    (1, 150, 200)
    """

    generator: Generator
    defaults: Defaults | None
    """Sampling and mask threshold that calls take where they name none; None without a grounding module."""
    _grounder: Grounder | None = None
    _spec: GroundingSpec | None = None
    _phrases: Mapping[str, str] = field(default_factory=dict)
    """Token of a textual inversion -> how it is spelt for the tokenizer."""

    @classmethod
    def from_pretrained(
        cls,
        generator: str | Path,
        *,
        grounding: str | Path | None,
        device: str = "auto",
        dtype: str = "float32",
        image_size: int | None = None,
        textual_inversions: TextualInversions = (),
        config_from: str | Path | None = None,
        loras: Sequence[str | Path] = (),
        allow_other_generator: bool = False,
    ) -> GroundedPipeline:
        """Load a diffusers pipeline (Stable Diffusion 1.x, 2.x or XL) and a grounding module. Only safetensors is read.

        Args:
            generator: folder or hub id, or a single file in the original layout, with `config_from`.
            grounding: model folder; None: words are found by DAAM's cross-attention maps (arXiv 2210.04885), which
                need no training and no model folder.
            device: 'auto' (a GPU where there is one), 'cpu', 'cuda', 'cuda:1'.
            dtype: of the generator: 'float32', 'bfloat16', 'float16' or 'auto'.
            image_size: side of the images, px; None: what the module was trained on, or the UNet's own size.
            textual_inversions: words of your own, safetensors files of embeddings for this generator.
            config_from: for a single file, a diffusers pipeline folder of the same kind: its configs, tokenizer and
                scheduler are used.
            loras: files, or 'FILE:SCALE', that are added to the weights of UNet and text encoders.
            allow_other_generator: take a module that was trained on another generator.
        Raises: UserError, one line, for a missing, pickled or unfit checkpoint or file, and for a module of another
            generator.
        """
        checkpoint = str(generator)
        spec = module = None
        if grounding is not None:
            module, spec = load_grounding(Path(grounding))  # before the generator, which takes seconds
        picked = pick_device(device)
        configs, added = str(config_from or ""), [str(lora) for lora in loras]
        pipeline = load_pipeline(checkpoint, dtype=pick_dtype(dtype, picked), config_from=configs, loras=added)
        phrases = {}
        for token, file in _inversions(textual_inversions):
            try:
                phrase = add_textual_inversion(pipeline, file, token=token)
            except OSError as error:
                raise UserError(
                    f"{file}: cannot be read ({error.strerror or error}); give a safetensors file"
                ) from None
            phrases[phrase.split()[0]] = phrase
        if image_size is None:
            factor = 2 ** (len(pipeline.vae.config.block_out_channels) - 1)
            image_size = spec.image_size if spec else pipeline.unet.config.sample_size * factor
        loaded_id = generator_id(checkpoint, config_from=configs, loras=added)
        loaded = Generator(pipeline.to(picked), image_size=image_size, generator_id=loaded_id)
        if grounding is None or module is None or spec is None:
            return cls(loaded, None, _phrases=phrases)
        grounder = Grounder.of(
            module,
            spec,
            folder=Path(grounding),
            generator=loaded,
            device=picked,
            allow_other_generator=allow_other_generator,
        )
        return cls(loaded, read_defaults(Path(grounding), spec), grounder, spec, phrases)

    def __call__(
        self,
        prompts: str | Sequence[str],
        *,
        words: Sequence[str] | Sequence[Sequence[str]],
        seeds: Sequence[int] | None = None,
        num_steps: int | None = None,
        guidance_scale: float | None = None,
        tapped_step: int | None = None,
        sampling: Sampling | None = None,
        mask_threshold: float | None = None,
        resolve_overlaps: bool = True,
        batch_size: int = 8,
    ) -> GroundedOutput:
        """Sample one image per prompt and find words in it. A sample depends on its prompt, seed and settings only.

        Args:
            prompts: one or B.
            words: of all prompts (["dog", "cat"]), or of each prompt ([["dog"], ["cat", "sofa"]]). A prompt contains
                its words; with a textual inversion, its token is a word.
            seeds: one per prompt; None: 0, 1, 2, …
            num_steps, guidance_scale: sampling steps, evenly spread, and classifier-free guidance; None: those of
                `sampling`.
            tapped_step: step whose features are read, counted from the clean end; None: that of `sampling` if it is
                given, else the one that is closest to the timestep on which the module was trained.
            sampling: sampler, timesteps and the settings above in one; None: see `defaults`.
            mask_threshold: probability from which a pixel belongs to a word, above 0, to 1; None: see `defaults`.
            resolve_overlaps: True gives a pixel to its likeliest word only, so that masks are disjoint; False gives
                each word all pixels above the threshold.
            batch_size: images sampled at once; changes the speed, and the images by floating-point error only. It is
                halved, with a warning, where memory runs out.
        Raises: UserError for a word that its prompt does not contain, a missing or repeated word, numbers that do not
            fit each other, settings out of range, and a pipeline without defaults that is called without settings;
            InfrastructureError, a UserError too, where there is no memory for a single image.
        """
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        seeds = list(range(len(prompts))) if seeds is None else list(seeds)
        if prompts and (len(seeds) != len(prompts) or min(seeds) < 0):
            raise UserError(f"seeds must be one number per prompt, 0 or more; got {seeds} for {len(prompts)} prompts")
        threshold = self._threshold(mask_threshold)
        sampling = self._sampling(sampling, num_steps, guidance_scale, tapped_step)
        samples = self.stream(
            prompts,
            words=words,
            samples=enumerate(seeds),
            sampling=sampling,
            mask_threshold=threshold,
            resolve_overlaps=resolve_overlaps,
            batch_size=batch_size,
        )
        return GroundedOutput(tuple(samples))

    def stream(
        self,
        prompts: Sequence[str],
        *,
        words: Sequence[str] | Sequence[Sequence[str]],
        samples: Iterable[tuple[int, int]],
        sampling: Sampling | None = None,
        mask_threshold: float | None = None,
        resolve_overlaps: bool = True,
        batch_size: int = 8,
    ) -> Iterator[GroundedSample]:
        """The samples one by one, as they are ready: memory does not grow with their number.

        Args:
            samples: place of the prompt in `prompts`, and seed, of each sample; read as they are needed.
            The others are those of a call.
        Raises: UserError as a call does, before the first sample.
        """
        if not prompts:
            raise UserError("prompts is empty; give at least one prompt")
        if batch_size < 1:
            raise UserError(f"batch_size must be at least 1, got {batch_size}")
        words_of = _words_of(words, num=len(prompts))
        threshold = self._threshold(mask_threshold)
        sampling = self._sampling(sampling, None, None, None)
        self._check_inversions(prompts)
        spelt = [spell_out(prompt, self._phrases) for prompt in prompts]
        queries = [self._queries(full, of) for full, of in zip(spelt, words_of, strict=True)]
        left = iter(samples)

        def sample(batch: Sequence[tuple[int, int]]) -> tuple[np.ndarray, list[np.ndarray]]:
            places, seeds = [place for place, _ in batch], [seed for _, seed in batch]
            return self._sample([spelt[i] for i in places], seeds, sampling, [queries[i] for i in places])

        while wanted := list(islice(left, batch_size)):
            batches = in_batches(wanted, sample, batch_size=batch_size, setting="batch_size", lower="image_size")
            for batch, (images, found) in batches:
                for (i, seed), image, scores in zip(batch, images, found, strict=True):
                    probs = scores[: len(words_of[i])]
                    masks = _masks(probs, threshold, resolve=resolve_overlaps)
                    yield GroundedSample(Image.fromarray(image), words_of[i], probs, masks, prompts[i], seed)

    def segment(
        self,
        image: ImageLike,
        *,
        words: Sequence[str],
        prompt: str | None = None,
        mask_threshold: float | None = None,
        resolve_overlaps: bool = True,
        fixed_point_iterations: int = 1,
    ) -> GroundedSample:
        """Find words in a real image: DDIM inversion to the tapped step, then the grounding module.

        Args:
            image: path, PIL image or array, any size; it is read as a square of the generator's image size, and
                probabilities are resized back to the image's own size.
            words: what to look for.
            prompt: a caption that contains the words; None: "a photograph of a <word> and a <word> …".
            mask_threshold, resolve_overlaps: as for a call.
            fixed_point_iterations: UNet passes per step beyond the first; they make the inversion more exact.
        Raises: UserError as a call does, for an image that cannot be read, and for a pipeline without grounding module;
            InfrastructureError, a UserError too, where memory runs out.
        """
        if self._grounder is None or self._spec is None:
            raise UserError("segment needs a grounding module; give from_pretrained a model folder as grounding")
        [of_image] = _words_of(list(words), num=1)
        prompt = photograph_of(*of_image) if prompt is None else prompt
        spelt = spell_out(prompt, self._phrases)
        queries = self._queries(spelt, of_image)
        threshold = self._threshold(mask_threshold)
        pixels = read_image(image)
        size, sampling = self.generator.image_size, self._spec.sampling
        square = Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC)
        with naming_what_to_lower("segment", "image_size or the size of the image"):
            latents = invert_latents(
                self.generator,
                self.generator.encode(np.array(square)[None]),
                [spelt],
                num_steps=sampling.num_steps,
                tapped_step=sampling.tapped_step,
                timesteps=sampling.timesteps,
                fixed_point_iterations=fixed_point_iterations,
            )
            [found] = self._grounder.probs(
                latents=latents, prompts=[spelt], words=[queries], timestep=self._spec.timestep, image_size=size
            )
            resized = F.interpolate(found[None], size=pixels.shape[:2], mode="bilinear", align_corners=False)[0]
        probs = resized[: len(of_image)].numpy()
        masks = _masks(probs, threshold, resolve=resolve_overlaps)
        return GroundedSample(Image.fromarray(pixels), of_image, probs, masks, prompt)

    def sampling_of(self, *, num_steps: int | None = None, guidance_scale: float | None = None) -> Sampling:
        """How a call with these arguments samples. Raises: UserError as a call does."""
        return self._sampling(None, num_steps, guidance_scale, None)

    @contextmanager
    def watched(self, on_pass: Callable[[], None]) -> Iterator[None]:
        """Calls `on_pass` after every pass of the UNet, e.g. to show progress. What it raises ends the call."""
        hook = self.generator._unet.register_forward_hook(lambda *_: on_pass())
        try:
            yield
        finally:
            hook.remove()

    def _sample(
        self, prompts: Sequence[str], seeds: Sequence[int], sampling: Sampling, queries: Sequence[Sequence[str]]
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        """Images uint8 (B, H, W, 3), and of each the scores float32 (Q, H, W) of its words: of the grounding module, or
        else of DAAM."""
        if self._grounder is None:
            images, maps = sample_with_maps(self.generator, prompts, seeds, queries, sampling)
            return images, list(maps)
        images, probs = self._grounder.sample(prompts, seeds, sampling, words=queries)
        return images, [of_sample.numpy() for of_sample in probs]

    def _sampling(
        self, given: Sampling | None, num_steps: int | None, guidance_scale: float | None, tapped_step: int | None
    ) -> Sampling:
        """Raises: UserError where neither the call nor the model folder says how to sample."""
        base = given or (self.defaults.sampling if self.defaults else Sampling(0, -1.0, 1))
        sampling = base if num_steps is None else replace(base, num_steps=num_steps, timesteps=())
        if guidance_scale is not None:
            sampling = replace(sampling, guidance_scale=guidance_scale)
        if sampling.num_steps < 1 or sampling.guidance_scale < 0:
            raise UserError(
                f"num_steps must be at least 1, guidance_scale not negative, got {sampling.num_steps} and "
                f"{sampling.guidance_scale:g}; a pipeline without a grounding module has no defaults: give both"
            )
        if tapped_step is None and given is not None:
            return sampling
        sampling = replace(sampling, tapped_step=1)
        return replace(sampling, tapped_step=self._tapped_step(sampling) if tapped_step is None else tapped_step)

    def _threshold(self, given: float | None) -> float:
        if given is None:
            if self.defaults is None:
                raise UserError("mask_threshold is needed where the pipeline has no grounding module")
            return self.defaults.mask_threshold
        if not 0 < given <= 1:
            raise UserError(f"mask_threshold must be above 0 and at most 1, got {given:g}")
        return given

    def _tapped_step(self, sampling: Sampling) -> int:
        """The step that is closest to the timestep of the module's training; the last one without a module."""
        if self._spec is None:
            return 1
        timesteps = self.generator.timesteps(sampling)[::-1]  # the clean end first
        return 1 + int(np.abs(np.subtract(timesteps, self._spec.timestep)).argmin())

    def _check_inversions(self, prompts: Sequence[str]) -> None:
        """Raises: UserError for a textual inversion that no prompt uses: it was loaded in vain."""
        for token, phrase in self._phrases.items():
            spelt = [spell_out(prompt, self._phrases) for prompt in prompts]
            if not any(token_spans(self.generator.tokenizer, prompt, [phrase])[0] for prompt in spelt):
                raise UserError(
                    f"the prompt '{prompts[0]}' does not contain '{token}', a textual inversion; write it there, or "
                    "load the file under another name"
                )

    def _queries(self, spelt: str, words: Sequence[str]) -> list[str]:
        """The words as the tokenizer has them, then inversions that contain one of them: a "dog" that is asked for is
        not the one in "<my-dog>". Raises: UserError for a word that is not in the prompt."""
        full = [spell_out(word, self._phrases) for word in words]
        around = [phrase for phrase in self._phrases.values() if any(w in phrase and w != phrase for w in full)]
        queries = list(dict.fromkeys([*full, *around]))
        check_words(spelt, full, others=around)
        token_spans(self.generator.tokenizer, spelt, queries)  # raises for words beyond the tokenizer's limit
        return queries


def _inversions(given: TextualInversions) -> list[tuple[str | None, Path]]:
    if isinstance(given, Mapping):
        return [(token, Path(file)) for token, file in given.items()]
    pairs = [(None, entry) if isinstance(entry, str | Path) else entry for entry in given]
    return [(token, Path(file)) for token, file in pairs]


def _words_of(words: Sequence[str] | Sequence[Sequence[str]], *, num: int) -> list[tuple[str, ...]]:
    """The words of each of `num` prompts. Raises: UserError where there is none, one twice, or another number."""
    if isinstance(words, str):
        raise UserError(f"words must be a list of words, got the text '{words}'; write ['{words}']")
    if all(isinstance(word, str) for word in words):
        of_each = [tuple(str(word) for word in words)] * num
    else:
        of_each = [tuple(of) if not isinstance(of, str) else (of,) for of in words]
    if len(of_each) != num:
        raise UserError(f"words must be one list for all prompts or one per prompt ({num}), got {len(of_each)} lists")
    for of in of_each:
        repeated = sorted({word for word in of if of.count(word) > 1})
        if not of or not all(word.strip() for word in of):
            raise UserError("every prompt needs at least one word, and no word is empty")
        if repeated:
            raise UserError(f"words name '{repeated[0]}' twice; name it once")
    return of_each


def _masks(probs: np.ndarray, threshold: float, *, resolve: bool) -> np.ndarray:
    return likeliest_word(probs, mask_threshold=threshold) if resolve else probs >= threshold
