"""The frozen text-to-image model: sampling, and features of a latent it has sampled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, DiffusionPipeline
from torch import Tensor

from diffground.diffusion.checkpoint import generator_id, load_pipeline
from diffground.diffusion.cross_attention import Observer, WordMaps, cross_attention_layers, observe_cross_attention
from diffground.diffusion.sampling import Sampling
from diffground.diffusion.schedule import ddim_scheduler, sampling_scheduler
from diffground.diffusion.self_attention import PixelAffinity, observe_self_attention
from diffground.diffusion.text_encoding import EncodedText, TextEncoding
from diffground.diffusion.unet_features import group_by_size, stack_branches, tap_features
from diffground.errors import UserError
from diffground.vocabulary import photograph_of

_BRANCHES = {"conditional": 1, "both": 2}


@dataclass(frozen=True)
class Features:
    """What UNet passes show of B latents: all that the grounding module reads, apart from the text."""

    maps: dict[int, Tensor]
    """{size s: float32 (B, C_s, s, s)}, coarse to fine."""
    attention: Tensor | None
    """float32 (B, Q, L, s, s) in 0..1 at the finest size, for Q words and L layers; zero for queries that pad. The
    grounding package appends each word's denoising gain along L. None if no words were given."""
    clean: Tensor | None = None
    """float32 (B, C, h, w): the clean latents that the pass predicts, with the prompt. None if they were not kept."""

    def padded(self, num_queries: int) -> Features:
        """The same with attention maps of `num_queries` queries, at least as many as now."""
        if self.attention is None:
            return self
        missing = num_queries - self.attention.shape[1]
        return replace(self, attention=F.pad(self.attention, (0, 0, 0, 0, 0, 0, 0, missing)))


@dataclass(frozen=True)
class Samples:
    """Sampled images, and the state of sampling at the tapped step."""

    images: np.ndarray
    """uint8 (B, H, W, 3)."""
    latents: Tensor
    """float32 (B, C, h, w) on the model's device: what enters the UNet at `timestep`."""
    timestep: int
    """Of the noise schedule, 0..999 for Stable Diffusion."""
    features: Features | None = None
    """Of the tapped step's own pass; None if none were asked for."""


@dataclass(frozen=True)
class Tap:
    """What to read of a UNet pass."""

    branches: str = "conditional"
    """'conditional' reads the prompt's pass; 'both' puts the channels of every block output without the prompt before
    those with it (released code)."""
    words: Sequence[Sequence[str]] | None = None
    """Q phrases per sample, fewer are padded: also read their cross-attention maps. A map is the probability of the
    phrase's tokens, mean over tokens and heads, one map per layer, resized bilinearly to the finest feature size; zeros
    for a phrase that is not in that prompt."""


class Generator:
    """A Stable Diffusion model, frozen. A sample is a function of checkpoint, prompt, seed and sampler settings.

    Its noise comes from its own CPU generator, and nothing mixes the samples of a batch: the other samples of a batch
    change a result by floating-point error only.
    """

    def __init__(self, pipeline: DiffusionPipeline, *, image_size: int, generator_id: str) -> None:
        """`pipeline`: one that load_pipeline gives; it keeps its device and dtype.

        Raises: UserError for an image size that it cannot make.
        """
        self.generator_id = generator_id
        self.image_size = image_size
        self._text, self._unet, self._vae = TextEncoding(pipeline), pipeline.unet, pipeline.vae
        self.tokenizer = self._text.tokenizer
        self._scheduler_config = dict(pipeline.scheduler.config)
        for module in (*self._text.encoders, self._unet, self._vae):
            module.eval().requires_grad_(False)
        for module in (self._unet, self._vae):
            module.to(memory_format=torch.channels_last)  # convolutions are faster, on a CPU too
        factor = 2 ** (len(self._vae.config.block_out_channels) - 1)
        if image_size < factor or image_size % factor:
            raise UserError(f"generator.image_size must be a multiple of {factor} px for this VAE, got {image_size}")
        self._latent_size = image_size // factor
        self._feature_channels: dict[int, int] = {}

    @classmethod
    def load(
        cls,
        checkpoint: str,
        *,
        device: torch.device,
        dtype: torch.dtype,
        image_size: int,
        config_from: str = "",
        loras: Sequence[str] = (),
    ) -> Generator:
        """Read a diffusers pipeline folder, hub id or single file (safetensors only).

        config_from, loras: as load_pipeline takes them.
        Raises: UserError when it is missing, pickled or no Stable Diffusion (1.x, 2.x, XL) pipeline.
        """
        pipeline = load_pipeline(checkpoint, dtype=dtype, config_from=config_from, loras=loras).to(device)
        loaded_id = generator_id(checkpoint, config_from=config_from, loras=loras)
        return cls(pipeline, image_size=image_size, generator_id=loaded_id)

    @property
    def device(self) -> torch.device:
        return self._unet.device

    @property
    def dtype(self) -> torch.dtype:
        """In which the networks compute; the sampler computes in float32."""
        return self._unet.dtype

    @property
    def text_dim(self) -> int:
        """Width of the text states."""
        return self._text.dim

    @property
    def num_attention_maps(self) -> int:
        """Cross-attention layers of the UNet: L of Features.attention."""
        return len(cross_attention_layers(self._unet))

    @property
    def cross_attention_names(self) -> list[str]:
        """The name in the UNet of each layer of cross_attention_layers: "down_blocks.0.attentions.0 … attn2"."""
        names = {id(module): name for name, module in self._unet.named_modules()}
        return [names[id(layer)] for layer in cross_attention_layers(self._unet)]

    @property
    def latent_size(self) -> int:
        """Side of a latent."""
        return self._latent_size

    @torch.no_grad()
    def sample(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        sampling: Sampling,
        *,
        recorder: Observer | None = None,
        tap: Tap | None = None,
    ) -> Samples:
        """Sample one image per prompt, with classifier-free guidance against the empty prompt.

        recorder: observes the cross-attention of every step (with guidance the unconditional half of the batch comes
        first). tap: also read features in the pass of the tapped step, instead of in another pass later on (only where
        'both' branches are asked for and that step has no guidance, another pass is needed). One of the two at most.
        Raises: UserError for settings out of range; ValueError for both a recorder and a tap.
        """
        if recorder is not None and tap is not None:
            raise ValueError("recorder and tap cannot be given together")
        scheduler = sampling_scheduler(self._scheduler_config, sampling)
        tapped_timestep = int(scheduler.timesteps[-sampling.tapped_step])
        guided_text = self._text.encode([""] * len(prompts) + list(prompts))
        plain_text = guided_text.last(len(prompts))
        latents = self.noise(seeds) * scheduler.init_noise_sigma
        tapped, features = latents, None
        with ExitStack() as stack:
            if recorder is not None:
                stack.enter_context(observe_cross_attention(self._unet, recorder))
            for timestep in map(int, scheduler.timesteps):
                guided = sampling.is_guided(timestep)
                inputs, text = (torch.cat([latents, latents]), guided_text) if guided else (latents, plain_text)
                if timestep == tapped_timestep:
                    tapped = latents
                if timestep != tapped_timestep or tap is None:
                    predicted = self._predict(inputs, timestep, text)
                elif tap.branches == "both" and not guided:
                    features = self.features(latents, prompts, timestep=timestep, tap=tap)
                    predicted = self._predict(inputs, timestep, text)
                else:
                    predicted, features = self._predict_tapped(inputs, timestep, text, prompts=prompts, tap=tap)
                if guided:
                    predicted = _guide(predicted, sampling.guidance_scale)
                latents = scheduler.step(predicted, timestep, latents).prev_sample
        return Samples(images=self.decode(latents), latents=tapped, timestep=tapped_timestep, features=features)

    def predictor(self, prompts: Sequence[str], *, guidance_scale: float = 1.0) -> Callable[[Tensor, int], Tensor]:
        """The UNet for these prompts: latents (B, C, h, w) and a timestep -> its prediction, float32 (B, C, h, w).

        guidance_scale: above 1, the prediction is that of classifier-free guidance against the empty prompt.
        """
        guided = guidance_scale > 1
        text = self._text.encode([""] * len(prompts) + list(prompts) if guided else prompts)

        @torch.no_grad()
        def predict(latents: Tensor, timestep: int) -> Tensor:
            predicted = self._predict(torch.cat([latents, latents]) if guided else latents, timestep, text)
            return _guide(predicted, guidance_scale) if guided else predicted

        return predict

    @torch.no_grad()
    def features(
        self,
        latents: Tensor,
        prompts: Sequence[str],
        *,
        timestep: int,
        tap: Tap | None = None,
    ) -> Features:
        """What `tap` reads of one UNet pass; None: Tap().

        latents: (B, C, h, w) as Samples.latents, any float dtype.
        """
        tap = tap or Tap()
        both = tap.branches == "both"
        latents = latents.to(self.device)
        text = self._text.encode([""] * len(prompts) + list(prompts) if both else prompts)
        inputs = torch.cat([latents, latents]) if both else latents
        return self._predict_tapped(inputs, timestep, text, prompts=prompts, tap=tap)[1]

    def feature_channels(self, branches: str = "conditional") -> dict[int, int]:
        """{feature size: channels}, coarse to fine, read off one pass of this UNet at this image size."""
        if not self._feature_channels:
            maps = self.features(self.noise([0]), [""], timestep=0).maps
            self._feature_channels = {size: m.shape[1] for size, m in maps.items()}
        return {size: channels * _BRANCHES[branches] for size, channels in self._feature_channels.items()}

    def scheduler(self, num_steps: int) -> DDIMScheduler:
        """The checkpoint's noise schedule as a DDIM sampler of `num_steps` steps. Raises: UserError out of range."""
        return ddim_scheduler(self._scheduler_config, num_steps=num_steps)

    def timesteps(self, sampling: Sampling) -> list[int]:
        """The timesteps of a sampling, falling. Raises: UserError for settings out of range."""
        timesteps: list[int] = sampling_scheduler(self._scheduler_config, sampling).timesteps.tolist()
        return timesteps

    def timestep(self, sampling: Sampling) -> int:
        """The timestep of the tapped step. Raises: UserError for settings out of range."""
        return self.timesteps(sampling)[-sampling.tapped_step]

    def noise(self, seeds: Sequence[int]) -> Tensor:
        """float32 (B, C, h, w): standard normal, sample i drawn from its own CPU generator with seeds[i]."""
        shape = (self._unet.config.in_channels, self._latent_size, self._latent_size)
        noise = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return torch.stack(noise).to(self.device)

    def add_noise(self, clean: Tensor, noise: Tensor, *, timestep: int) -> Tensor:
        """Clean latents (B, C, h, w) as they would be at `timestep` (0 to 999) with this noise, standard normal."""
        return self.scheduler(1).add_noise(clean, noise, torch.tensor([timestep], device=clean.device))

    @torch.no_grad()
    def denoise(
        self,
        latents: Tensor,
        prompts: Sequence[str],
        *,
        timestep: int,
        recorder: Observer | None = None,
        affinity: PixelAffinity | None = None,
        max_affinity_size: int = 0,
    ) -> Tensor:
        """The clean latents, float32 (B, C, h, w), that one pass predicts from `latents` at `timestep`, no guidance.

        recorder: observes cross-attention. affinity: observes self-attention up to `max_affinity_size` pixels per side.
        """
        text = self._text.encode(prompts)
        with ExitStack() as stack:
            if recorder is not None:
                stack.enter_context(observe_cross_attention(self._unet, recorder))
            if affinity is not None:
                stack.enter_context(observe_self_attention(self._unet, affinity, max_size=max_affinity_size))
            predicted = self._predict(latents, timestep, text)
        return self._clean(predicted, latents, timestep)

    def embed(self, prompts: Sequence[str]) -> Tensor:
        """Text states (B, T, D) in the model's dtype; T is the tokenizer's maximum.

        Raises: UserError for a prompt that does not fit (nothing is cut off silently).
        """
        return self._text.encode(prompts).states

    def category_embedding(self, phrase: str) -> Tensor:
        """float32 (D): the mean text state over the phrase's tokens in "a photograph of a <phrase>"."""
        return self.category_embeddings([phrase])[0]

    def category_embeddings(self, phrases: Sequence[str]) -> Tensor:
        """float32 (Q, D), each row as from category_embedding. Raises: UserError for a phrase that does not fit."""
        prompts = [photograph_of(phrase) for phrase in phrases]
        weights = self.token_weights(prompts, [[phrase] for phrase in phrases])  # (Q, T, 1)
        return (self.embed(prompts).float() * weights).sum(dim=1)

    def token_weights(self, prompts: Sequence[str], words: Sequence[Sequence[str]]) -> Tensor:
        """float32 (B, T, Q): 1/n at the n token positions of word q in prompt b; zeros for a word that is not there."""
        return self._text.token_weights(prompts, words).to(self.device)

    @torch.no_grad()
    def encode(self, images: np.ndarray) -> Tensor:
        """Images uint8 (B, S, S, 3), S = image_size -> clean latents float32 (B, C, h, w), the mean that the VAE gives.

        Raises: ValueError for another shape or dtype.
        """
        if images.dtype != np.uint8 or images.shape[1:] != (self.image_size, self.image_size, 3):
            size = self.image_size
            raise ValueError(f"images must be uint8 (B, {size}, {size}, 3), got {images.dtype} {images.shape}")
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).to(self.device, self._vae.dtype) / 127.5 - 1
        return self._vae.encode(pixels).latent_dist.mode().float() * self._vae.config.scaling_factor

    @torch.no_grad()
    def decode(self, latents: Tensor) -> np.ndarray:
        """Clean latents (B, C, h, w) -> images uint8 (B, H, W, 3)."""
        decoded = self._vae.decode(latents.to(self._vae.dtype) / self._vae.config.scaling_factor).sample  # (B, 3, H, W)
        images = (decoded.float() / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
        return (images.cpu().numpy() * 255).round().astype(np.uint8)

    def _clean(self, predicted: Tensor, latents: Tensor, timestep: int) -> Tensor:
        """The clean latents that a prediction at `timestep` amounts to, whatever the model predicts."""
        scheduler = self.scheduler(1)
        return scheduler.step(predicted, timestep, latents.to(predicted)).pred_original_sample

    def _predict_tapped(
        self, inputs: Tensor, timestep: int, text: EncodedText, *, prompts: Sequence[str], tap: Tap
    ) -> tuple[Tensor, Features]:
        """The UNet's prediction for `inputs`, of which the last B, one per prompt, are those with the prompt; features
        of these B."""
        num = len(prompts)
        observer = None if tap.words is None else WordMaps(self.token_weights(prompts, tap.words))
        with ExitStack() as stack:
            maps = stack.enter_context(tap_features(self._unet))
            if observer is not None:
                stack.enter_context(observe_cross_attention(self._unet, observer))
            predicted = self._predict(inputs, timestep, text)
        clean = self._clean(predicted[-num:], inputs[-num:], timestep)
        of_branches = stack_branches(maps) if tap.branches == "both" else [m[-num:] for m in maps]
        grouped = {size: m.float() for size, m in group_by_size(of_branches).items()}
        attention = None if observer is None else observer.resized(max(grouped), mode="bilinear")
        return predicted, Features(maps=grouped, attention=attention, clean=clean)

    def _predict(self, latents: Tensor, timestep: int, text: EncodedText) -> Tensor:
        """The UNet's prediction, float32 (B, C, h, w)."""
        return self._unet(
            latents.to(self.dtype),
            timestep,
            encoder_hidden_states=text.states,
            return_dict=False,
            added_cond_kwargs=text.added_conditions(image_size=self.image_size),
        )[0].float()


def _guide(predicted: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance: predictions (2B, C, h, w), those without the prompt first -> (B, C, h, w)."""
    unconditional, conditional = predicted.chunk(2)
    return unconditional + scale * (conditional - unconditional)
