"""The captioner: an upstream's features, their positions, and ALBERT over [caption | features]."""

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from mynah.utility.albert.captioning import AlbertForImageCaptioning
from mynah.utility.albert.config import AlbertConfig
from mynah.utility.albert.masked_captions import MaskedCaptions
from mynah.utility.configuration.sections import one_of
from mynah.utility.nn.encoder import ACTIVATIONS, EncoderConfig, sinusoid_positions
from mynah.utility.nn.padding import lengths_to_mask


class CaptionModelConfig(EncoderConfig):
    """The caption decoder. Its shape counts for a new one only: weights that are taken bring their own."""

    use_upstream_decoder: bool = True
    """Begin with the upstream's caption decoder and tokenizer, where it has been pretrained with one."""
    albert: str = ""
    """Otherwise: a folder with an official ALBERT or BERT to begin with, its tokenizer included; "" for neither."""
    num_hidden_groups: int = Field(1, ge=1, le=10_000)
    """Distinct sets of weights; 1 is ALBERT."""
    hidden_size: int = Field(512, ge=1)
    """Width of a hidden state."""
    num_attention_heads: int = Field(8, ge=1)
    """Must divide hidden_size."""
    intermediate_size: int = Field(2048, ge=1)
    """Width inside the feed-forward block."""
    hidden_act: Annotated[str, one_of(ACTIVATIONS)] = "gelu_new"
    """gelu, gelu_new, relu or silu."""
    hidden_dropout_prob: float = Field(0.1, ge=0, lt=1)
    """Dropout on the input and on the output of every block."""
    embedding_size: int = Field(128, ge=1)
    """Width of the embeddings of words."""
    vocab_size: int = Field(10000, ge=16)
    """Word pieces of a tokenizer trained on the training captions; fewer where these do not give as many."""
    video_positions: bool = True
    """Add sinusoids of time and place to the features; never to the H_0 of an upstream's own decoder."""
    sparse_attention: bool = False
    """Give a new decoder SwinBERT's learned mask among features; an upstream's decoder keeps its own."""
    hard_attention: bool | None = None
    """Harden that mask at 0.5; null: as the upstream's decoder has it."""
    sparse_weight: float = Field(0.5, ge=0)
    """Weight of the loss that keeps the mask sparse."""

    def decoder_config(self, feature_size: int, vocab_size: int, pad_id: int) -> AlbertConfig:
        """The shape of a new decoder for features of that width and a tokenizer of that size."""
        shape = {name: getattr(self, name) for name in EncoderConfig.model_fields}
        return AlbertConfig(
            **shape,
            embedding_size=self.embedding_size,
            vocab_size=vocab_size,
            pad_token_id=pad_id,
            img_feature_dim=feature_size,
        )


class CaptionModel(nn.Module):
    """A caption decoder, and the positions that it adds to embedded features."""

    def __init__(self, decoder: AlbertForImageCaptioning, num_positions: int, num_steps: int | None):
        """num_positions: features of a clip. num_steps: positions in time, the slowest axis, that they are of, to add
        sinusoids of time and place to them; None to add none, so that features of `img_feature_dim` None are H_0.
        """
        super().__init__()
        self.decoder = decoder
        positions = None
        if num_steps is not None:
            positions = video_positions(num_positions, num_steps, decoder.config.hidden_size)
        self.register_buffer("positions", positions, persistent=False)

    def embed(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor | None]:
        """features: (B, N, D), lengths: (B,) -> (B, N, hidden_size) for the decoder, and which of them are valid,
        (B, N) bool, or None where all are.
        """
        # Where the features are embedded (H_0), an upstream that is trained has already applied the dropout of
        # `embed_video`; applied to a frozen one's here, the model trains as it was pretrained in both cases.
        trained_h0 = self.decoder.config.img_feature_dim is None and features.requires_grad
        embedded = features if trained_h0 else self.decoder.embed_video(features)
        if self.positions is not None:
            embedded = embedded + self.positions[: embedded.shape[1]]
        valid = lengths_to_mask(lengths, features.shape[1])
        if valid.all():
            return embedded, None
        return embedded.masked_fill(~valid[:, :, None], 0.0), valid

    def losses(
        self, embedded: Tensor, video_valid: Tensor | None, ids: Tensor, valid: Tensor, masked: MaskedCaptions
    ) -> Tensor:
        """embedded and video_valid: of `embed`; ids and valid: (B, K, C), of `pad_captions`.

        Returns the cross-entropy of each masked word piece, (M,) float32 in nats, in the order of `masked.targets`.
        """
        logits = self.decoder(masked.inputs, valid, embedded, video_valid, masked.targets)
        return F.cross_entropy(logits.float(), ids[masked.targets], reduction="none")


def video_positions(num_positions: int, num_steps: int, width: int) -> Tensor:
    """(num_positions, width) float32: sinusoids of time on the first half of the channels, of the place within a step
    on the second, where there is more than one; num_positions is a multiple of num_steps.
    """
    places = num_positions // num_steps
    if places == 1:
        return sinusoid_positions(num_steps, width)
    time = sinusoid_positions(num_steps, width - width // 2).repeat_interleave(places, 0)
    place = sinusoid_positions(places, width // 2).repeat(num_steps, 1)
    return torch.cat([time, place], 1)
