"""MaskFormer's weights under the names of the authors' package, and back."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import Tensor
from transformers import DetrConfig, MaskFormerConfig, MaskFormerForInstanceSegmentation, ResNetConfig

from diffground.errors import UserError
from diffground.segmentation.official_weights import from_official, to_official

WIDTH, NUM_QUERIES, NUM_LABELS, FFN = 32, 5, 3, 48


def _build(
    layer_type: str = "bottleneck", *, depths: tuple[int, ...] = (1, 2, 12, 1), stem: int = 8, width: int = 16
) -> MaskFormerForInstanceSegmentation:
    torch.manual_seed(0)
    backbone = ResNetConfig(
        embedding_size=stem,
        hidden_sizes=[width * 2**i for i in range(4)],
        depths=list(depths),
        layer_type=layer_type,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    decoder = DetrConfig(
        backbone_config=backbone,
        num_queries=NUM_QUERIES,
        d_model=WIDTH,
        encoder_layers=0,
        decoder_layers=2,
        decoder_ffn_dim=FFN,
        encoder_ffn_dim=FFN,
        decoder_attention_heads=4,
        encoder_attention_heads=4,
    )
    model = MaskFormerForInstanceSegmentation(
        MaskFormerConfig(
            backbone_config=backbone,
            decoder_config=decoder,
            fpn_feature_size=64,
            mask_feature_size=WIDTH,
            num_labels=NUM_LABELS,
        )
    )
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.ndim == 1:  # norms and biases, which start out all the same
                tensor.copy_(torch.rand(tensor.shape) + 0.5 * ("weight" in name or "var" in name))
    return model.eval()


@pytest.mark.parametrize("layer_type", ["basic", "bottleneck"])
def test_there_and_back_is_the_same(layer_type: str) -> None:
    state = _build(layer_type).state_dict()
    back = from_official(to_official(state))
    counters = {name for name in state if name.endswith("num_batches_tracked")}
    assert len(counters) > 20
    assert set(back) == set(state) - counters
    assert all(torch.equal(back[name], state[name]) for name in back)


def test_the_model_loads_what_came_back_and_computes_the_same() -> None:
    model, other = _build(), _build()
    weights = from_official(to_official(model.state_dict()))
    with torch.no_grad():
        for weight in other.parameters():
            weight.zero_()
        other.load_state_dict(weights)
        image = torch.rand(1, 3, 64, 64)
        expected, found = model(pixel_values=image), other(pixel_values=image)
    assert torch.equal(expected.masks_queries_logits, found.masks_queries_logits)
    assert torch.equal(expected.class_queries_logits, found.class_queries_logits)


def test_names_and_shapes_are_those_of_the_authors_package() -> None:
    # facebookresearch/MaskFormer: what mask_former_model, pixel_decoder and transformer_predictor register, and
    # detectron2's ResNet; in_channels of adapter_k and of layer_4 are the widths of res(k + 1) and res5
    expected = {
        "backbone.stem.conv1.weight": (8, 3, 7, 7),
        "backbone.stem.conv1.norm.running_var": (8,),
        "backbone.res2.0.shortcut.weight": (16, 8, 1, 1),
        "backbone.res2.0.conv1.weight": (4, 8, 1, 1),
        "backbone.res3.1.conv2.weight": (8, 8, 3, 3),
        "backbone.res4.11.conv3.norm.weight": (64,),
        "backbone.res5.0.shortcut.norm.bias": (128,),
        "sem_seg_head.pixel_decoder.adapter_1.weight": (64, 16, 1, 1),
        "sem_seg_head.pixel_decoder.adapter_2.weight": (64, 32, 1, 1),
        "sem_seg_head.pixel_decoder.adapter_3.weight": (64, 64, 1, 1),
        "sem_seg_head.pixel_decoder.adapter_3.norm.weight": (64,),
        "sem_seg_head.pixel_decoder.layer_1.weight": (64, 64, 3, 3),
        "sem_seg_head.pixel_decoder.layer_4.weight": (64, 128, 3, 3),
        "sem_seg_head.pixel_decoder.layer_4.norm.bias": (64,),
        "sem_seg_head.pixel_decoder.mask_features.weight": (WIDTH, 64, 3, 3),
        "sem_seg_head.predictor.query_embed.weight": (NUM_QUERIES, WIDTH),
        "sem_seg_head.predictor.input_proj.weight": (WIDTH, 128, 1, 1),
        "sem_seg_head.predictor.transformer.decoder.layers.1.self_attn.in_proj_weight": (3 * WIDTH, WIDTH),
        "sem_seg_head.predictor.transformer.decoder.layers.1.multihead_attn.in_proj_bias": (3 * WIDTH,),
        "sem_seg_head.predictor.transformer.decoder.layers.0.multihead_attn.out_proj.weight": (WIDTH, WIDTH),
        "sem_seg_head.predictor.transformer.decoder.layers.0.linear1.weight": (FFN, WIDTH),
        "sem_seg_head.predictor.transformer.decoder.layers.0.linear2.weight": (WIDTH, FFN),
        "sem_seg_head.predictor.transformer.decoder.layers.0.norm3.weight": (WIDTH,),
        "sem_seg_head.predictor.transformer.decoder.norm.weight": (WIDTH,),
        "sem_seg_head.predictor.class_embed.weight": (NUM_LABELS + 1, WIDTH),
        "sem_seg_head.predictor.mask_embed.layers.2.weight": (WIDTH, WIDTH),
        "criterion.empty_weight": (NUM_LABELS + 1,),
    }
    official = to_official(_build().state_dict())
    assert {name: tuple(official[name].shape) for name in expected} == expected
    assert all(name.startswith(("backbone.", "sem_seg_head.", "criterion.")) for name in official)


def test_the_backbone_computes_what_torchvision_s_resnet_does_with_these_weights() -> None:
    model = _build(depths=(1, 2, 2, 1), stem=64, width=256)
    theirs = torchvision.models.ResNet(torchvision.models.resnet.Bottleneck, [1, 2, 2, 1])
    backbone = {n: w for n, w in to_official(model.state_dict()).items() if n.startswith("backbone.")}
    missing, unknown = theirs.load_state_dict({_torchvision_name(n): w for n, w in backbone.items()}, strict=False)
    assert (missing, unknown) == (["fc.weight", "fc.bias"], [])
    seen: list[Tensor] = []
    theirs.layer4.register_forward_hook(lambda _layer, _inputs, output: seen.append(output))
    image = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        theirs.eval()(image)
        found = model.model.pixel_level_module.encoder(image).feature_maps[-1]
    assert found.std() > 0
    torch.testing.assert_close(found, seen[0], rtol=1e-4, atol=1e-4 * float(found.abs().max()))


def _torchvision_name(name: str) -> str:
    """detectron2 counts stages from 2 and keeps a norm in its convolution; else its names are torchvision's."""
    name = name.removeprefix("backbone.").removeprefix("stem.")
    name = re.sub(r"^res(\d)", lambda match: f"layer{int(match[1]) - 1}", name)
    name = name.replace("shortcut.norm", "downsample.1").replace("shortcut", "downsample.0")
    return re.sub(r"conv(\d)\.norm", r"bn\1", name)


def test_an_attention_computes_what_torch_s_does_with_the_joint_projections() -> None:
    model = _build()
    ours = model.model.transformer_module.decoder.layers[1].encoder_attn
    official = to_official(model.state_dict())
    prefix = "sem_seg_head.predictor.transformer.decoder.layers.1.multihead_attn."
    theirs = torch.nn.MultiheadAttention(WIDTH, 4, batch_first=True).eval()
    theirs.load_state_dict({n.removeprefix(prefix): w for n, w in official.items() if n.startswith(prefix)})
    queries, memory = torch.randn(2, NUM_QUERIES, WIDTH), torch.randn(2, 9, WIDTH)
    with torch.no_grad():
        expected, _ = theirs(queries, memory, memory)
        found, _ = ours(queries, memory)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("convert", [to_official, from_official])
def test_weights_of_another_architecture_are_refused(convert: Callable[[dict[str, Tensor]], object]) -> None:
    with pytest.raises(
        UserError, match=r"'backbone\.layers\.0\.blocks\.0\.attn\.qkv\.weight' is no weight of MaskFormer"
    ):
        convert({"backbone.layers.0.blocks.0.attn.qkv.weight": torch.zeros(1)})
