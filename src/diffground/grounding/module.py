"""The grounding module (paper section 3.3): feature maps and words in, one mask per word out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffground.errors import UserError
from diffground.grounding.attention_branch import AttentionBranch
from diffground.grounding.fusion import Fusion, to_patches
from diffground.grounding.released import ReleasedFusion, ReleasedVisualEncoder
from diffground.grounding.visual_encoder import VisualEncoder

_ENCODERS: dict[str, type[VisualEncoder | ReleasedVisualEncoder]] = {
    "diffground": VisualEncoder,
    "released": ReleasedVisualEncoder,
}
_FUSIONS: dict[str, type[Fusion | ReleasedFusion]] = {"diffground": Fusion, "released": ReleasedFusion}


class GroundingModule(nn.Module):
    """Visual encoder, fusion, dot product. In evaluation mode a sample's masks do not depend on its batch.

    feature_channels: size (px) of the generator's maps -> channels.
    text_dim: width of a word's embedding.
    num_attention_maps: maps per word, of cross-attention and denoising gain; 0 leaves the attention branch out, which
        is the paper's module.
    tokens_at: 'features' takes the visual tokens from the fused map (released code), 'image' from the map upsampled
        to image size (paper).
    architecture: 'diffground', or 'released' for visual encoder and fusion of the published checkpoint.
    The other arguments are those of params.yaml, section grounding.

    Raises: UserError when the sizes do not fit each other, ValueError for another architecture.
    """

    def __init__(
        self,
        *,
        feature_channels: Mapping[int, int],
        text_dim: int,
        num_attention_maps: int,
        reduced_channels: Sequence[int],
        embed_dim: int,
        num_layers: int,
        num_heads: int,
        ffn_dim: int,
        patch_size: int,
        tokens_at: str,
        architecture: str = "diffground",
    ) -> None:
        super().__init__()
        if architecture not in _ENCODERS:
            raise ValueError(f"architecture must be one of {', '.join(_ENCODERS)}, got '{architecture}'")
        if embed_dim % num_heads:
            raise UserError(f"grounding.embed_dim must be a multiple of num_heads {num_heads}, got {embed_dim}")
        if tokens_at not in ("features", "image"):
            raise UserError(f"grounding.tokens_at must be 'features' or 'image', got '{tokens_at}'")
        finest = max(feature_channels)
        if tokens_at == "features" and finest % patch_size:
            raise UserError(f"grounding.patch_size must divide the finest feature size {finest}, got {patch_size}")
        self.patch_size = patch_size
        self.tokens_at = tokens_at
        self.visual_encoder = _ENCODERS[architecture](
            feature_channels=feature_channels, reduced_channels=reduced_channels
        )
        visual_dim = self.visual_encoder.out_channels
        self.fusion = _FUSIONS[architecture](
            text_dim=text_dim,
            token_dim=visual_dim * patch_size**2,
            mask_dim=visual_dim,
            embed_dim=embed_dim,
            num_layers=num_layers,
            num_heads=num_heads,
            ffn_dim=ffn_dim,
        )
        self.attention_branch = (
            AttentionBranch(num_maps=num_attention_maps, visual_dim=visual_dim, embed_dim=embed_dim)
            if num_attention_maps
            else None
        )

    def forward(
        self,
        maps: Mapping[int, Tensor],
        text: Tensor,
        attention: Tensor | None,
        *,
        image_size: int,
        exists: Tensor | None = None,
        text_kept: Tensor | None = None,
    ) -> Tensor:
        """Args:
            maps: size s -> float (B, C_s, s, s).
            text: float (B, Q, text_dim), the embeddings of each sample's words.
            attention: float (B, Q, L, s, s), maps of each word; only a module with num_attention_maps > 0 reads it.
            image_size: side of the masks, px.
            exists: bool (B, Q), False where a query only pads a sample with fewer words; None: all exist.
            text_kept: bool (B, Q), False where the mask uses only the attention branch (in training, so that it learns
                to); only a module with num_attention_maps > 0 reads it. None: text counts everywhere.
        Returns: logits float (B, Q, image_size, image_size); those of padding have no meaning.

        Raises: ValueError when attention maps are needed and missing.
        """
        if exists is None:
            exists = torch.ones(text.shape[:2], dtype=torch.bool, device=text.device)
        fused = self.visual_encoder(maps)  # (B, D, S, S)
        evidence, prototype = None, None
        if self.attention_branch is not None:
            if attention is None:
                raise ValueError("this module reads word attention: give the cross-attention maps of its words")
            evidence, prototype = self.attention_branch(attention, fused, exists=exists)
        tokens = to_patches(self._token_map(fused, image_size), self.patch_size)  # (B, N, D p^2)
        mask_embedding = self.fusion(text, tokens, exists=exists, prototype=prototype)  # (B, Q, D)
        logits = torch.einsum("bqd,bdyx->bqyx", mask_embedding, fused)  # (B, Q, S, S)
        if evidence is not None:
            if text_kept is not None:
                logits = logits * text_kept[..., None, None]
            logits = logits + evidence
        # Bilinear upsampling is linear: upsampling D-channel maps first would give the same logits, at D / Q the cost.
        return _upsample(logits, image_size)

    def _token_map(self, fused: Tensor, image_size: int) -> Tensor:
        return _upsample(fused, image_size) if self.tokens_at == "image" else fused


def _upsample(x: Tensor, size: int) -> Tensor:
    return F.interpolate(x, size=(size, size), mode="bilinear", align_corners=False)
