"""Video Swin under ALBERT (SwinBERT: Lin et al. 2022, with its BERT replaced by ALBERT)."""

import logging
import math

from torch import Tensor, nn

from mynah.utility.albert.captioning import AlbertForImageCaptioning
from mynah.utility.albert.sparse_attention import SPARSE_TABLE, LearnedSparseAttention

from .config import VidSwinAlbertConfig
from .video_swin import VideoSwin

TABLE = f"captioner.{SPARSE_TABLE}"

log = logging.getLogger("mynah")


class VidSwinAlbert(nn.Module):
    """Clips and masked captions -> scores of the masked words.

    Clip -> Video Swin -> linear to img_feature_dim -> image embedding -> ALBERT over [caption | video tokens].
    """

    def __init__(self, config: VidSwinAlbertConfig):
        super().__init__()
        self.config = config
        self.swin = VideoSwin(config.swin)
        self.num_positions = math.prod(config.grid())
        self.projection = nn.Linear(self.swin.feature_size, config.albert.img_feature_dim)
        self.captioner = AlbertForImageCaptioning(
            config.albert, self.num_positions if config.sparse_attention else None, config.hard_attention
        )

    def resize_sparse_attention(self, weights: dict[str, Tensor], trained: VidSwinAlbertConfig) -> dict[str, Tensor]:
        """Weights of a model `trained` on another number of frames -> the same with sparse attention of this one's
        size, as `config.sparse_resizing` says. As they are where one has none, or the places of a step are others.
        """
        (steps, *places), (own_steps, *own_places) = trained.grid(), self.config.grid()
        if TABLE not in weights or self.captioner.sparse_attention is None:
            return weights
        if steps == own_steps or places != own_places:
            return weights
        given = LearnedSparseAttention(len(weights[TABLE]))
        given.table.data.copy_(weights[TABLE])
        resized = given.resized(self.num_positions, steps, own_steps, self.config.sparse_resizing)
        log.info(
            "sparse attention: carried over from %d to %d steps of time (%s)",
            *(steps, own_steps, self.config.sparse_resizing),
        )
        return {**weights, TABLE: resized.table.data}

    def forward(self, frames: Tensor, input_ids: Tensor, caption_valid: Tensor, targets: Tensor) -> Tensor:
        """frames: (B, T, 3, S, S) float32, normalized; input_ids, caption_valid, targets: (B, K, C), see
        AlbertForImageCaptioning. Returns the scores (M, vocab_size) at the M targets.
        """
        return self.captioner(input_ids, caption_valid, self.embed(frames), targets=targets)

    def embed(self, frames: Tensor) -> Tensor:
        """frames: (B, T, 3, S, S) -> H_0, the embedded video tokens, (B, N, hidden_size), time the slowest axis."""
        features = self.swin(frames).flatten(1, 3)
        return self.captioner.embed_video(self.projection(features))
