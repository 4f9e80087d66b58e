"""Published weights of Swin, under the names and in the shapes of `video_swin.py`.

Read are Video Swin in its authors' layout (also inside SwinBERT) and in torchvision's, and 2-D Swin in its authors',
timm's and torchvision's layout, which is inflated (Liu et al. 2022, sec. 3.3): a patch's weights are spread evenly
over its frames, and the bias of a relative position is taken for every distance in time. So the network sees a still
clip as the 2-D one sees its frame.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from mynah.utility.errors import UserError
from mynah.utility.experiments.weight_files import read_weights

from .video_swin import SIZES, VideoSwin, VideoSwinConfig

Weights = dict[str, Tensor]

EXPECTED = "a Video Swin checkpoint (official or torchvision's) or a 2-D Swin checkpoint"
COMPUTED = ("attn.relative_position_index", "attn_mask")
"""What some layouts store though it follows from the window."""
OTHERS = ("cls_head.", "head.", "fc.", "trans_encoder.", "learn_vid_att.")
"""What a file may hold beside the backbone: classifiers, and the rest of SwinBERT."""
WINDOWS = ((8, 7, 7), (16, 7, 7), (8, 12, 12), (7, 7), (12, 12))
"""Windows of published checkpoints, in three and in two dimensions."""
SHOWN = 3


@dataclass(frozen=True)
class Layout:
    """The names of a published Swin; {even}, {odd} and {after} are 2 * stage, + 1 and + 2, {next} is stage + 1."""

    description: str
    patch: str
    patch_norm: str
    block: str
    merging: str
    mlp: tuple[str, str]

    def name_of(self, own: str) -> str:
        """Its name for what is called `own` in VideoSwin."""
        own = own.replace("patch_embedding.projection", self.patch).replace("patch_embedding.norm", self.patch_norm)
        place = re.match(r"stages\.(\d+)\.(?:blocks\.(\d+)|merging)", own)
        if place is None:
            return own
        stage = int(place[1])
        numbers = {"even": 2 * stage, "odd": 2 * stage + 1, "after": 2 * stage + 2, "next": stage + 1}
        pattern = self.merging if place[2] is None else self.block
        theirs = pattern.format(stage=stage, block=place[2], **numbers)
        part = own[place.end() + 1 :]
        intermediate, output = self.mlp
        parts = {**PARTS, "mlp.intermediate": intermediate, "mlp.output": output}
        ours = next((name for name in parts if part.startswith(name)), "")
        return f"{theirs}.{parts.get(ours, '')}{part.removeprefix(ours)}"


PARTS = {
    "attention_norm": "norm1",
    "attention.query_key_value": "attn.qkv",
    "attention.output": "attn.proj",
    "attention.relative_bias": "attn.relative_position_bias_table",
    "mlp_norm": "norm2",
}
STAGE, FEATURES = "layers.{stage}.blocks.{block}", "features.{even}.{block}"
OFFICIAL = Layout(
    "official", "patch_embed.proj", "patch_embed.norm", STAGE, "layers.{stage}.downsample", ("mlp.fc1", "mlp.fc2")
)
TIMM = Layout(
    "timm's", "patch_embed.proj", "patch_embed.norm", STAGE, "layers.{next}.downsample", ("mlp.fc1", "mlp.fc2")
)
TORCHVISION_VIDEO = Layout(
    "torchvision's", "patch_embed.proj", "patch_embed.norm", FEATURES, "features.{odd}", ("mlp.0", "mlp.3")
)
TORCHVISION_IMAGE = Layout(
    "torchvision's", "features.0.0", "features.0.2", "features.{odd}.{block}", "features.{after}", ("mlp.0", "mlp.3")
)
PATCHES = tuple(f"{layout.patch}.weight" for layout in (OFFICIAL, TORCHVISION_IMAGE))


def load_swin(swin: VideoSwin, source: str | Path) -> str:
    """Load a published checkpoint, a path or a URL, into `swin`. Returns the kind of checkpoint, as text.

    Raises UserError, naming the file, where it is none or does not fit.
    """
    weights = read_weights(source, EXPECTED)
    swin.load_state_dict(convert_state_dict(weights, swin.config, source), strict=True)
    layout, is_image = _layout_of(_without_prefix(weights, source))
    return (
        f"2-D Swin in the {layout.description} layout, inflated" if is_image else f"Video Swin, {layout.description}"
    )


def convert_state_dict(weights: Weights, config: VideoSwinConfig, source: str | Path) -> Weights:
    """A published Swin's weights as the state dict of VideoSwin(config).

    weights: under any prefix ("backbone.", "swin.backbone."), with or without what follows it. source: the file, for
    messages. Every weight is accounted for; raises UserError for weights that are not Swin's, of another size or
    window, too many or too few.
    """
    weights = _without_prefix(weights, source)
    layout, is_image = _layout_of(weights)
    with torch.device("meta"):
        wanted = VideoSwin(config).state_dict()
    names = {own: layout.name_of(own) for own in wanted}
    problems = [
        *_listed("missing", sorted(set(names.values()) - weights.keys())),
        *_listed("not expected", sorted(weights.keys() - set(names.values()))),
    ]
    converted = {
        own: _fitted(own, weights[name], wanted[own].shape, config, is_image)
        for own, name in names.items()
        if name in weights
    }
    problems += _listed(
        "of another shape",
        [f"{names[own]} {tuple(one.shape)}" for own, one in converted.items() if one.shape != wanted[own].shape],
    )
    if problems:
        raise UserError(
            f"{source}: does not fit the model ({'; '.join(problems)}); {_explain(weights, layout, config)}"
        )
    return converted


def _without_prefix(weights: Weights, source: str | Path) -> Weights:
    """The backbone's weights by their bare names. Raises UserError if there are none."""
    found = [(name.removesuffix(patch), name) for name in weights for patch in PATCHES if name.endswith(patch)]
    if not found:
        raise UserError(f"{source}: expected {EXPECTED}, but its weights are {', '.join([*weights][:SHOWN])}, ...")
    prefix = min(found)[0]
    return {
        name.removeprefix(prefix): weight
        for name, weight in weights.items()
        if not name.endswith(COMPUTED) and not name.startswith((*OTHERS, *(prefix + other for other in OTHERS)))
    }


def _layout_of(weights: Weights) -> tuple[Layout, bool]:
    """The layout of bare weights, and whether it is that of a 2-D Swin."""
    if TORCHVISION_IMAGE.patch + ".weight" in weights:
        return TORCHVISION_IMAGE, True
    is_image = weights[OFFICIAL.patch + ".weight"].dim() == 4
    if any(name.startswith("features.") for name in weights):
        return TORCHVISION_VIDEO, is_image
    merges = {name.partition(".downsample.")[0] for name in weights if ".downsample." in name}
    return (OFFICIAL if "layers.0" in merges or not merges else TIMM), is_image


def _fitted(own: str, weight: Tensor, wanted: torch.Size, config: VideoSwinConfig, is_image: bool) -> Tensor:
    """A weight in the shape that VideoSwin keeps it in, or as it was where it does not fit."""
    if own == "patch_embedding.projection.weight":
        return _flatten_patches(weight, config.patch_size, is_image)
    if own.endswith(".relative_bias"):
        return _arrange_biases(weight, wanted, is_image)
    return weight


def _flatten_patches(weight: Tensor, patch_size: Sequence[int], is_image: bool) -> Tensor:
    """The convolution (D, 3, [time,] height, width) -> the matrix (D, 3 * time * height * width)."""
    full = weight
    if is_image and weight.dim() == 4:
        full = weight[:, :, None].expand(-1, -1, patch_size[0], -1, -1) / patch_size[0]
    return full.flatten(1) if list(full.shape[2:]) == list(patch_size) else weight


def _arrange_biases(table: Tensor, wanted: torch.Size, is_image: bool) -> Tensor:
    """(relative positions, heads) -> (heads, distances in time, height, width), those in 2-D resized as published."""
    heads, time, height, width = wanted
    if is_image and table.shape[1:] == (heads,):
        side = math.isqrt(len(table))
        if side * side != len(table):
            return table
        image = table.T.reshape(1, heads, side, side)
        if (side, side) != (height, width):
            image = F.interpolate(image.float(), (height, width), mode="bicubic")
        return image[0, :, None].expand(wanted)
    return table.T.reshape(wanted) if table.shape == (time * height * width, heads) else table


def _explain(weights: Weights, layout: Layout, config: VideoSwinConfig) -> str:
    """What the file most likely is."""
    if any("logit_scale" in name or "cpb_mlp" in name for name in weights):
        return "it is a Swin V2, whose attention is another; expected the first version"
    table = weights.get(layout.name_of("stages.0.blocks.0.attention.relative_bias"))
    if table is None:
        return "it has no table of relative positions, so it is no Swin"
    width, depths, rows = len(weights[f"{layout.patch}.weight"]), _depths(weights), len(table)
    window = next((list(one) for one in WINDOWS if _num_distances(one) == rows), f"with {rows} relative positions")
    near = [name for name, size in SIZES.items() if (size.embed_dim, size.depths) == (width, depths)]
    hint = f" ({near[0]})" if near else ""
    return (
        f"the file has embed_dim {width}, depths {depths}{hint} and windows {window}; the model has embed_dim "
        f"{config.embed_dim}, depths {list(config.depths)} and windows {list(config.window_size)}"
    )


def _depths(weights: Weights) -> list[int]:
    """The blocks of each stage."""
    blocks = [re.match(r"(?:layers|features)\.(\d+)\.(?:blocks\.)?\d+\.norm1\.weight", name) for name in weights]
    return [count for _, count in sorted(Counter(int(block[1]) for block in blocks if block).items())]


def _num_distances(window: Sequence[int]) -> int:
    """Relative positions inside a window."""
    return math.prod(2 * length - 1 for length in window)


def _listed(what: str, names: Sequence[str]) -> list[str]:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return [f"{len(names)} {what}: {', '.join(names[:SHOWN])}{more}"] if names else []
