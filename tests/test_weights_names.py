"""Names of published checkpoints: whose they are, and what they become here."""

from __future__ import annotations

import pytest

from minigan.errors import CheckpointError, UsageError
from minigan.weights import detect, rename
from minigan.weights.names import FAMILIES, translate


def spread(*patterns: str) -> list[str]:
    """Write out what stands in braces: a.{b,c} is a.b and a.c."""
    names = []
    for pattern in patterns:
        head, brace, rest = pattern.partition("{")
        inner, _, tail = rest.partition("}")
        names += spread(*(head + i + tail for i in inner.split(","))) if brace else [pattern]
    return names


STATISTICS = "{running_mean,running_var,num_batches_tracked}"
UNET = "model.model.{0,1.model.1,1.model.3.model.1,1.model.3.model.3,1.model.5,3}.weight"
UNET_NORMS = "model.model.{1.model.6,1.model.3.model.4}."
RESNET = "model.{1,4,7,10.conv_block.1,10.conv_block.5,11.conv_block.1,12,15,19}.{weight,bias}"
PATCH = "model.{0,2,5,8,11}.{weight,bias}"
SPADE = "{head_0,up_3}.{norm_0,norm_1}."

CHECKPOINTS = {
    "dcgan G": ("dcgan", spread("main.{0,3,6,12}.weight", "main.{1,4}.{weight,running_mean}")),
    "dcgan D": ("dcgan", spread("main.{0,2,5,8,11}.weight")),
    "U-Net, batch norm": (
        "pix2pix",
        spread(UNET, UNET_NORMS + "{weight,bias}", UNET_NORMS + STATISTICS),
    ),
    "U-Net, instance norm": ("cyclegan", spread(UNET)),
    "U-Net, instance norm of old": ("cyclegan", spread(UNET, UNET_NORMS + STATISTICS)),
    "ResNet": ("cyclegan", spread(RESNET)),
    "ResNet of old": ("cyclegan", spread(RESNET, "model.{2,5,8}." + STATISTICS)),
    "ResNet, batch norm": (
        "pix2pix",
        spread(RESNET, "model.{2,5,8}.{weight,bias}", "model.{2,5,8}." + STATISTICS),
    ),
    "PatchGAN": ("cyclegan", spread(PATCH)),
    "PatchGAN, batch norm": (
        "pix2pix",
        spread(PATCH, "model.{3,6,9}.{weight,bias}", "model.{3,6,9}." + STATISTICS),
    ),
    "PixelGAN": ("cyclegan", spread("net.{0,2,5}.weight")),
    "HD global": (
        "pix2pixhd",
        spread("model.{1,4,7,10,13,25,28,38}.weight", "model.{16,24}.conv_block.{1,5}.weight"),
    ),
    "HD local": (
        "pix2pixhd",
        spread("model.{1,4,16.conv_block.1}.weight", "model1_1.{1,4}.bias", "model1_2.7.bias"),
    ),
    "HD D": ("pix2pixhd", spread("scale{0,1}_layer{0,1,4}.0.{weight,bias}")),
    "HD D without features": ("pix2pixhd", spread("layer{0,1}.{0,2,5,8,11}.weight")),
    "HD encoder": ("pix2pixhd", spread("model.{1,4,7,10,13,16,19,22,25,29}.{weight,bias}")),
    "SPADE G": (
        "spade",
        spread(
            SPADE + "param_free_norm.running_mean",
            SPADE + "{mlp_shared.0,mlp_gamma,mlp_beta}.weight",
            "{head_0,up_3}.conv_0.{weight_orig,weight_u,weight_v,bias}",
            "{fc,conv_img}.weight",
        ),
    ),
    "SPADE D": (
        "spade",
        spread(
            "discriminator_{0,1}.model{0,4}.0.{weight,bias}",
            "discriminator_0.model1.0.0.{weight_orig,weight_u,weight_v}",
        ),
    ),
    "SPADE E": ("spade", spread("layer{1,6}.0.{weight_orig,weight_u}", "{fc_mu,fc_var}.weight")),
    "StyleGAN G": (
        "stylegan",
        spread(
            "style.{1,3,15}.linear.{weight_orig,bias}",
            "generator.progression.0.conv1.input",
            "generator.progression.0.noise1.weight_orig",
            "generator.progression.1.conv1.1.conv.weight_orig",
            "generator.progression.1.conv1.2.{weight,weight_flip}",
            "generator.progression.5.conv1.0.{weight,bias}",
            "generator.progression.5.conv1.1.{weight,weight_flip}",
            "generator.to_rgb.0.conv.{weight_orig,bias}",
        ),
    ),
    "StyleGAN D": (
        "stylegan",
        spread(
            "progression.0.conv1.0.conv.weight_orig",
            "progression.0.conv2.0.{weight,weight_flip}",
            "progression.0.conv2.1.{weight,bias}",
            "progression.8.conv2.0.conv.weight_orig",
            "linear.linear.weight_orig",
        ),
    ),
    "anything": ("torch", ["features.0.weight", "classifier.bias"]),
    "nothing": ("torch", []),
}  # fmt: skip


@pytest.mark.parametrize("which", CHECKPOINTS)
def test_the_family_is_found_by_the_names(which: str) -> None:
    family, names = CHECKPOINTS[which]
    assert detect(names) == family
    assert detect([f"module.{name}" for name in names]) == family
    assert detect(names[::-1]) == family


RENAMED = [
    ("dcgan", "module.main.0.weight", "main.0.weight"),
    ("dcgan", "main.1.running_mean", "main.1.running_mean"),
    ("pix2pix", "model.3.running_var", "model.3.running_var"),
    ("cyclegan", "module.model.2.running_var", None),
    ("cyclegan", "model.2.num_batches_tracked", None),
    ("cyclegan", "model.10.conv_block.5.bias", "model.10.conv_block.5.bias"),
    ("pix2pixhd", "model1_1.2.running_mean", None),
    ("pix2pixhd", "scale1_layer4.0.weight", "scale1_layer4.0.weight"),
    ("spade", "up_0.conv_s.weight_orig", "up_0.conv_s.weight"),
    ("spade", "module.up_0.conv_s.weight_u", "up_0.conv_s.sn.u"),
    ("spade", "discriminator_1.model2.0.0.weight_v", "discriminator_1.model2.0.0.sn.v"),
    ("spade", "up_0.norm_s.param_free_norm.running_var", "up_0.norm_s.param_free_norm.running_var"),
    ("stylegan", "style.1.linear.weight_orig", "style.1.linear.weight"),
    ("stylegan", "generator.progression.1.conv1.2.weight", None),
    ("stylegan", "generator.progression.1.conv1.2.weight_flip", None),
    ("stylegan", "generator.progression.5.conv1.0.bias", "generator.progression.5.conv1.0.bias"),
    ("stylegan", "generator.progression.5.conv1.1.weight", None),
    ("stylegan", "progression.0.conv2.0.weight", None),
    ("stylegan", "progression.0.conv2.1.weight", "progression.0.conv2.1.weight"),
    ("stylegan", "progression.8.conv2.0.conv.weight_orig", "progression.8.conv2.0.conv.weight"),
    ("torch", "a.parametrizations.weight.original", "a.weight"),
    ("torch", "a.weight_u", "a.sn.u"),
]  # fmt: skip


@pytest.mark.parametrize(("family", "theirs", "ours"), RENAMED)
def test_rename(family: str, theirs: str, ours: str | None) -> None:
    assert rename(theirs, family) == ours


def test_an_unknown_family_is_refused_with_a_suggestion() -> None:
    with pytest.raises(UsageError, match=r"did you mean 'spade'(?s:.*)pix2pixhd"):
        rename("a.weight", "spadee")


@pytest.mark.parametrize("which", CHECKPOINTS)
def test_all_names_stay_different(which: str) -> None:
    family, names = CHECKPOINTS[which]
    targets = translate(names, family).values()
    assert len(set(targets)) == len(targets)
    assert not any("_orig" in target or "flip" in target for target in targets)


PLAIN = spread("model.10.conv_block.{1,2,5,6}.weight")
DROPOUT = spread("model.10.conv_block.{1,2,6,7}.weight")


def test_a_dropout_layer_in_a_residual_block_moves_the_second_half() -> None:
    for theirs in (PLAIN, DROPOUT):
        for ours in (PLAIN, DROPOUT):
            assert list(translate(theirs, "pix2pix", ours).values()) == ours
    instance = spread("model.{10,11}.conv_block.{1,6}.bias")
    assert translate(instance, "cyclegan", spread("model.{10,11}.conv_block.{1,5}.bias")) == {
        name: name.replace("block.6", "block.5") for name in instance
    }
    assert list(translate(DROPOUT, "pix2pix").values()) == DROPOUT


def test_of_a_weight_before_and_after_spectral_norm_the_one_before_counts() -> None:
    names = spread("fc.weight", "up.conv_0.{weight_orig,weight,weight_u}")
    assert translate(names, "spade") == {
        "fc.weight": "fc.weight",
        "up.conv_0.weight_orig": "up.conv_0.weight",
        "up.conv_0.weight_u": "up.conv_0.sn.u",
    }


def test_two_names_that_become_one_are_refused() -> None:
    with pytest.raises(CheckpointError, match=r"'module\.a\.weight' and 'a\.weight' would both"):
        translate(["module.a.weight", "a.weight"], "torch")


def test_every_family_says_where_its_names_come_from() -> None:
    assert all(family.repository for family in FAMILIES.values())
    assert {family for family, _ in CHECKPOINTS.values()} == set(FAMILIES)
