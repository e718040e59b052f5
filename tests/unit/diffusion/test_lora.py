"""LoRA files: both layouts give the weights W + scale * alpha / rank * up @ down, and what does not fit is reported."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import save_file
from torch import Tensor, nn

from diffground import GroundedPipeline
from diffground.diffusion.checkpoint import generator_id, load_pipeline
from diffground.diffusion.generator import Generator
from diffground.diffusion.lora import add_lora
from diffground.diffusion.sampling import Sampling
from diffground.errors import UserError
from diffground.runtime.fingerprint import parse_lora
from tests.unit.diffusion.architectures import build_sdxl
from tests.unit.diffusion.conftest import IMAGE_SIZE, build_pipeline

CPU = {"device": torch.device("cpu"), "dtype": torch.float32, "image_size": IMAGE_SIZE}
TO_Q = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_q"
TO_OUT = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_out.0"
CONV = "down_blocks.0.resnets.0.conv1"
RANK = 2


@pytest.fixture
def pipeline() -> StableDiffusionPipeline:
    return build_pipeline()


def matrices(layer: nn.Module, seed: int = 0) -> tuple[Tensor, Tensor]:
    """down and up of an update of `layer`."""
    random = torch.Generator().manual_seed(seed)
    out, inner, *kernel = layer.weight.shape
    down = torch.randn(RANK, inner, *kernel, generator=random)
    return down, torch.randn(out, RANK, *[1] * len(kernel), generator=random)


def saved(folder: Path, tensors: dict[str, Tensor], **metadata: str) -> Path:
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, folder / "lora.safetensors", metadata)
    return folder / "lora.safetensors"


@pytest.mark.parametrize(
    ("layer", "down_key", "up_key"),
    [
        (TO_Q, f"unet.{TO_Q}.lora_A.weight", f"unet.{TO_Q}.lora_B.weight"),
        (TO_Q, f"unet.{TO_Q}.lora.down.weight", f"unet.{TO_Q}.lora.up.weight"),
        (
            TO_Q,
            TO_Q.replace(".to_q", ".processor.to_q_lora.down.weight"),
            TO_Q.replace(".to_q", ".processor.to_q_lora.up.weight"),
        ),
        (
            TO_OUT,
            "unet." + TO_OUT.replace(".to_out.0", ".processor.to_out_lora.down.weight"),
            "unet." + TO_OUT.replace(".to_out.0", ".processor.to_out_lora.up.weight"),
        ),
        (
            TO_OUT,
            f"lora_unet_{TO_OUT.replace('.', '_')}.lora_down.weight",
            f"lora_unet_{TO_OUT.replace('.', '_')}.lora_up.weight",
        ),
    ],
    ids=["peft", "diffusers", "processors", "processors, out", "kohya"],
)
def test_a_linear_layer_gets_the_product(
    pipeline: StableDiffusionPipeline, tmp_path: Path, layer: str, down_key: str, up_key: str
) -> None:
    module = pipeline.unet.get_submodule(layer)
    before, (down, up) = module.weight.detach().clone(), matrices(module)
    assert add_lora(pipeline, saved(tmp_path, {down_key: down, up_key: up}), scale=0.5) == 1
    torch.testing.assert_close(module.weight, before + 0.5 * up @ down)


def test_alpha_over_rank_scales_a_convolution(pipeline: StableDiffusionPipeline, tmp_path: Path) -> None:
    module = pipeline.unet.get_submodule(CONV)
    before, (down, up) = module.weight.detach().clone(), matrices(module)
    key = f"lora_unet_{CONV.replace('.', '_')}"
    path = saved(
        tmp_path, {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up, f"{key}.alpha": torch.tensor(6.0)}
    )
    inputs = torch.randn(1, before.shape[1], 5, 5)
    with torch.no_grad():
        plain = module(inputs)
        add_lora(pipeline, path, scale=1.0)
        # as the network of the training computes it: a convolution down to the rank, then one of 1 x 1 up
        added = nn.functional.conv2d(nn.functional.conv2d(inputs, down, padding=1), up)
        torch.testing.assert_close(module(inputs), plain + 6 / RANK * added, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "key",
    [
        "lora_te_text_model_encoder_layers_1_self_attn_q_proj.lora_{}.weight",
        "text_encoder.text_model.encoder.layers.1.self_attn.to_q_lora.{}.weight",
        "text_encoder.text_model.encoder.layers.1.self_attn.q_proj.lora_linear_layer.{}.weight",
    ],
)
def test_the_text_encoder_gets_its_part(pipeline: StableDiffusionPipeline, tmp_path: Path, key: str) -> None:
    [module] = [m for name, m in pipeline.text_encoder.named_modules() if name.endswith("layers.1.self_attn.q_proj")]
    before, (down, up) = module.weight.detach().clone(), matrices(module)
    add_lora(pipeline, saved(tmp_path, {key.format("down"): down, key.format("up"): up}), scale=1.0)
    torch.testing.assert_close(module.weight, before + up @ down)


def test_the_alpha_that_diffusers_writes_into_the_metadata_counts(
    pipeline: StableDiffusionPipeline, tmp_path: Path
) -> None:
    module = pipeline.unet.get_submodule(TO_Q)
    before, (down, up) = module.weight.detach().clone(), matrices(module)
    tensors = {f"unet.{TO_Q}.lora_A.weight": down, f"unet.{TO_Q}.lora_B.weight": up}
    metadata = json.dumps({"unet.r": RANK, "unet.lora_alpha": 8})
    add_lora(pipeline, saved(tmp_path, tensors, lora_adapter_metadata=metadata), scale=1.0)
    torch.testing.assert_close(module.weight, before + 8 / RANK * up @ down)


def test_kohyas_block_numbers_of_xl_are_those_of_diffusers(tmp_path: Path) -> None:
    pipeline = build_sdxl()
    # input block 4 of the original code is the first layer of the second size: 1 conv_in, 2 layers and a downsampler
    expected = {
        "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_k": (
            pipeline.unet.down_blocks[1].attentions[0].transformer_blocks[0].attn1.to_k
        ),
        "lora_unet_input_blocks_4_0_in_layers_2": pipeline.unet.down_blocks[1].resnets[0].conv1,
        "lora_unet_input_blocks_4_0_skip_connection": pipeline.unet.down_blocks[1].resnets[0].conv_shortcut,
        "lora_unet_output_blocks_2_1_transformer_blocks_3_attn2_to_v": (
            pipeline.unet.up_blocks[0].attentions[2].transformer_blocks[3].attn2.to_v
        ),
        "lora_unet_input_blocks_3_0_op": pipeline.unet.down_blocks[0].downsamplers[0].conv,
        "lora_unet_output_blocks_2_2_conv": pipeline.unet.up_blocks[0].upsamplers[0].conv,
        "lora_unet_middle_block_2_out_layers_3": pipeline.unet.mid_block.resnets[1].conv2,
        "lora_unet_input_blocks_0_0": pipeline.unet.conv_in,
        "lora_unet_out_2": pipeline.unet.conv_out,
        "lora_unet_label_emb_0_2": pipeline.unet.add_embedding.linear_2,
        "lora_te2_text_model_encoder_layers_0_mlp_fc1": dict(pipeline.text_encoder_2.named_modules())[
            "text_model.encoder.layers.0.mlp.fc1"
        ],
    }
    before = {key: module.weight.detach().clone() for key, module in expected.items()}
    tensors, deltas = {}, {}
    for i, (key, module) in enumerate(expected.items()):
        down, up = matrices(module, seed=i)
        tensors |= {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up}
        deltas[key] = (up.flatten(1) @ down.flatten(1)).reshape(module.weight.shape)
    assert add_lora(pipeline, saved(tmp_path, tensors), scale=1.0) == len(expected)
    for key, module in expected.items():
        torch.testing.assert_close(module.weight, before[key] + deltas[key])


def test_a_file_that_fits_nothing_is_refused(pipeline: StableDiffusionPipeline, tmp_path: Path) -> None:
    path = saved(tmp_path, {"lora_unet_x.lora_down.weight": torch.ones(2, 3), "lora_unet_x.hada_w1_a": torch.ones(2)})
    with pytest.raises(UserError, match="none of its 2 tensors belongs to a layer of this generator"):
        add_lora(pipeline, path, scale=1.0)


def test_layers_that_are_not_there_are_counted(
    pipeline: StableDiffusionPipeline, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    down, up = matrices(pipeline.unet.get_submodule(TO_Q))
    tensors = {
        f"unet.{name}.lora_{side}.weight": matrix.clone()
        for name in (TO_Q, "down_blocks.7.x", "down_blocks.8.x")
        for side, matrix in (("A", down), ("B", up))
    }
    with caplog.at_level(logging.WARNING):
        assert add_lora(pipeline, saved(tmp_path, tensors), scale=1.0) == 1
    [message] = [record.getMessage() for record in caplog.records if record.name == "diffground.diffusion.lora"]
    assert "2 of its 3 layers are not in this generator and are left out (down_blocks_7_x, …)" in message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({f"unet.{TO_Q}.lora_A.weight": torch.ones(2, 5)}, r"have the shapes \(8, 2\) and \(2, 5\)"),
        ({f"unet.{TO_Q}.lora_A.weight": None}, r"have the shapes \(8, 2\) and None"),
        ({f"unet.{TO_Q}.lora_magnitude_vector.weight": torch.ones(8)}, "only plain LoRA is read"),
    ],
)
def test_matrices_that_do_not_fit_are_one_line(
    pipeline: StableDiffusionPipeline, tmp_path: Path, change: dict[str, Tensor | None], message: str
) -> None:
    down, up = matrices(pipeline.unet.get_submodule(TO_Q))
    tensors = {f"unet.{TO_Q}.lora_A.weight": down, f"unet.{TO_Q}.lora_B.weight": up, **change}
    path = saved(tmp_path, {key: tensor for key, tensor in tensors.items() if tensor is not None})
    with pytest.raises(UserError, match=message) as caught:
        add_lora(pipeline, path, scale=1.0)
    assert "\n" not in str(caught.value)


def test_a_setting_is_a_file_and_a_scale(tmp_path: Path) -> None:
    file = tmp_path / "my lora:0.5.safetensors"
    file.touch()
    assert parse_lora(str(file)) == (file, 1.0)
    assert parse_lora(f"{file}:0.8") == (file, 0.8)
    assert parse_lora(f"{file}:-1") == (file, -1.0)
    for text, message in (
        (f"{file}:much", "must be a finite number, got 'much'"),
        (f"{file}:nan", "must be a finite number, got 'nan'"),
        (str(tmp_path / "none.safetensors:1"), "no such file"),
        ("lora.pt:0.8", "with a .safetensors file"),
    ):
        with pytest.raises(UserError, match=message):
            parse_lora(text)


def test_samples_and_the_generators_name_know_file_and_scale(checkpoint: Path, tmp_path: Path) -> None:
    down, up = matrices(build_pipeline().unet.get_submodule(TO_Q))
    file = saved(tmp_path, {f"unet.{TO_Q}.lora_A.weight": 5 * down, f"unet.{TO_Q}.lora_B.weight": 5 * up})
    settings = [[], [f"{file}:0"], [f"{file}:0.5"], [str(file)]]
    generators = [Generator.load(str(checkpoint), **CPU, loras=loras) for loras in settings]
    images = [g.sample(["a photograph of a dog"], [3], Sampling(2, 3.0, 1)).images for g in generators]
    assert (images[0] == images[1]).all()
    assert (images[0] != images[2]).any() and (images[2] != images[3]).any()
    assert generators[0].generator_id == generator_id(str(checkpoint))
    assert len({g.generator_id for g in generators}) == 4
    saved(tmp_path, {f"unet.{TO_Q}.lora_A.weight": down, f"unet.{TO_Q}.lora_B.weight": up})
    assert generator_id(str(checkpoint), loras=[str(file)]) != generators[3].generator_id


def test_the_public_pipeline_takes_loras(checkpoint: Path, tmp_path: Path) -> None:
    down, up = matrices(build_pipeline().unet.get_submodule(TO_Q))
    file = saved(tmp_path, {f"unet.{TO_Q}.lora_A.weight": down, f"unet.{TO_Q}.lora_B.weight": up})
    pipe = GroundedPipeline.from_pretrained(checkpoint, grounding=None, device="cpu", loras=[file])
    assert pipe.generator.generator_id == generator_id(str(checkpoint), loras=[str(file)])


def test_no_lora_leaves_the_weights_alone(checkpoint: Path) -> None:
    loaded = load_pipeline(str(checkpoint), dtype=torch.float32, loras=[])
    expected = build_pipeline().unet.state_dict()
    assert all(torch.equal(tensor, expected[key]) for key, tensor in loaded.unet.state_dict().items())
