"""The caption transformer: ALBERT (or BERT, as in SwinBERT) over [caption | video tokens].

Lin et al. 2022, sec. 3: a word piece attends to the earlier ones of its caption, itself and all video tokens; video
tokens attend to video tokens, through the learned sparse mask where there is one, and never to a caption. So what
becomes of the video does not depend on what is said of it, several captions of a clip share one pass over its
video tokens, and generation needs that pass but once (caption_memory.py).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mynah.utility.albert.config import AlbertConfig
from mynah.utility.albert.model import AlbertEmbeddings, MaskedLanguageHead, initialize_albert
from mynah.utility.albert.sparse_attention import LearnedSparseAttention
from mynah.utility.nn.encoder import TransformerEncoder, attention_map, combine_masks, fused_attention


class AlbertForImageCaptioning(nn.Module):
    """(captions with masked word pieces, video tokens) -> scores of the word piece in each position."""

    def __init__(self, config: AlbertConfig, num_video_positions: int | None = None, hard_attention: bool = False):
        """num_video_positions: size of the learned table of attention among video tokens; None for no table, so that
        all video tokens attend to all. hard_attention: as `hard` of LearnedSparseAttention.
        """
        super().__init__()
        self.config = config
        self.albert = AlbertImgModel(config)
        self.predictions = MaskedLanguageHead(config, self.albert.embeddings.word_embeddings)
        self.sparse_attention = (
            None
            if num_video_positions is None
            else LearnedSparseAttention(num_video_positions, hard_attention, config.sparse_form)
        )

    def forward(
        self,
        input_ids: Tensor,
        caption_valid: Tensor,
        embedded: Tensor,
        video_valid: Tensor | None = None,
        targets: Tensor | None = None,
    ) -> Tensor:
        """input_ids: (B, K, C) int64, K captions of each of B clips; caption_valid: (B, K, C) bool; embedded:
        (B, N, hidden_size), from `embed_video`; video_valid: (B, N) bool, at least one of every clip.

        Returns scores (B, K, C, vocab_size), or (M, vocab_size), those of the M positions in `targets`, (B, K, C)
        bool. Raises ValueError for captions longer than max_position_embeddings and for another number of video
        tokens than the sparse attention's.
        """
        bias = self.video_bias(embedded.shape[1])
        states, _ = self.albert(input_ids, caption_valid, embedded, video_valid, bias)
        return self.predictions(states if targets is None else states[targets])

    def embed_video(self, img_feats: Tensor) -> Tensor:
        """img_feats: (B, N, img_feature_dim) -> the video's H_0: (B, N, hidden_size)."""
        return self.albert.embed_video(img_feats)

    def encode_video(
        self, embedded: Tensor, valid: Tensor | None = None, num_layers: int | None = None
    ) -> tuple[Tensor, ...]:
        """embedded: (B, N, hidden_size), valid: (B, N) bool -> the video's H_0, H_1, .. H_L, of the same shape, as
        they are beside any caption; with num_layers, up to that layer.
        """
        bias = self.video_bias(embedded.shape[1])
        return self.albert.encoder(embedded, valid, mask=bias, num_layers=num_layers)[0]

    def video_attention(
        self, input_ids: Tensor, caption_valid: Tensor, embedded: Tensor, video_valid: Tensor | None = None
    ) -> Tensor:
        """Arguments of `forward` -> what each position attends to of the video, (L * inner_group_num, B, K, C, N):
        a layer's attention weights, mean over heads; the rest to 1 goes to the caption.
        """
        bias = self.video_bias(embedded.shape[1])
        _, maps = self.albert(input_ids, caption_valid, embedded, video_valid, bias, return_attentions=True)
        return torch.stack(maps)

    def sparsity(self) -> Tensor:
        """The sparse attention's loss; 0 without one."""
        if self.sparse_attention is None:
            return torch.zeros((), device=self.predictions.bias.device)
        return self.sparse_attention.sparsity()

    def video_bias(self, num_positions: int) -> Tensor | None:
        """The mask among that many video tokens, (1, 1, N, N), added to the scores; None without one.

        Raises ValueError where the sparse attention is of another number.
        """
        if self.sparse_attention is None:
            return None
        if num_positions != self.sparse_attention.num_positions:
            raise ValueError(
                f"{num_positions} video tokens, but the learned sparse attention is of "
                f"{self.sparse_attention.num_positions}: give it clips of as many frames"
            )
        return self.sparse_attention.bias()[None, None]


class AlbertImgModel(nn.Module):
    """Embeddings of captions and of image features, and the encoder over both."""

    def __init__(self, config: AlbertConfig):
        super().__init__()
        self.config = config
        self.embeddings = AlbertEmbeddings(config)
        self.encoder = TransformerEncoder(config)
        self.img_embedding = (
            nn.Identity() if config.img_feature_dim is None else nn.Linear(config.img_feature_dim, config.hidden_size)
        )
        self.img_dropout = nn.Dropout(config.hidden_dropout_prob)
        # Captioning has no use for it; it is here because published weights have it.
        self.pooler = nn.Linear(config.hidden_size, config.hidden_size).requires_grad_(False)
        initialize_albert(self, config.initializer_range)

    def embed_video(self, img_feats: Tensor) -> Tensor:
        """img_feats: (B, N, img_feature_dim), or hidden_size wide where that is None -> (B, N, hidden_size)."""
        return self.img_dropout(self.img_embedding(img_feats))

    def forward(
        self,
        input_ids: Tensor,
        caption_valid: Tensor,
        embedded: Tensor,
        video_valid: Tensor | None = None,
        video_bias: Tensor | None = None,
        return_attentions: bool = False,
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Arguments as of AlbertForImageCaptioning.forward; video_bias: (1, 1, N, N), added to the scores.

        Returns the captions' last hidden states, (B, K, C, hidden_size), and each layer's attention to the video,
        (B, K, C, N), or () unless asked for.
        """
        batch, captions, length = input_ids.shape
        attend = CaptionVideoAttention(caption_valid, video_valid, video_bias, embedded.shape[1], return_attentions)
        x = torch.cat([self.embed_captions(input_ids), embedded], 1)
        layers = [layer for group in self.encoder.passes() for layer in group]
        for index, layer in enumerate(layers):
            attend.captions_only = index == len(layers) - 1  # nobody reads what the last makes of the video
            x = layer(x, attend)
        maps = tuple(attended.unflatten(1, (captions, length)) for attended in attend.maps)
        return x.view(batch, captions, length, -1), maps

    def embed_captions(self, input_ids: Tensor) -> Tensor:
        """input_ids: (B, K, C) int64 -> (B, K * C, hidden_size); every caption's positions start from 0."""
        _, captions, length = input_ids.shape
        if length > self.config.max_position_embeddings:
            raise ValueError(
                f"captions of {length} word pieces, but the model has embeddings for "
                f"{self.config.max_position_embeddings} (max_position_embeddings); give the tokenizer a max_length"
            )
        positions = torch.arange(length, device=input_ids.device).repeat(captions)[None]
        return self.embeddings(input_ids.flatten(1), position_ids=positions)


class CaptionVideoAttention:
    """Attention over [K captions of C word pieces | N video tokens] of every clip; an encoder's `AttentionFunction`.

    Captions and video are asked apart, so that nobody computes what video tokens would make of captions.
    """

    captions_only = False
    """Whether to answer the captions' queries alone."""

    def __init__(
        self,
        caption_valid: Tensor,
        video_valid: Tensor | None,
        video_bias: Tensor | None,
        num_video: int,
        keep_maps: bool,
    ):
        """caption_valid: (B, K, C) bool, video_valid: (B, N) bool or None, video_bias: (1, 1, N, N) or None."""
        self.num_caption = caption_valid[0].numel()
        self.caption_mask = caption_mask(caption_valid, video_valid, num_video)
        self.video_mask = combine_masks(video_bias, video_valid)
        self.keep_maps = keep_maps
        self.maps: list[Tensor] = []

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, dropout: float) -> Tensor:
        caption, video = query.tensor_split([self.num_caption], 2)
        if self.keep_maps:
            attention = attention_map(caption, key, self.caption_mask)
            self.maps.append(attention[..., self.num_caption :].mean(1))
            mixed = F.dropout(attention, dropout) @ value
        else:
            mixed = fused_attention(caption, key, value, self.caption_mask, dropout)
        if self.captions_only:
            return mixed
        key, value = key[:, :, self.num_caption :], value[:, :, self.num_caption :]
        return torch.cat([mixed, fused_attention(video, key, value, self.video_mask, dropout)], 2)


def caption_mask(caption_valid: Tensor, video_valid: Tensor | None, num_video: int) -> Tensor:
    """Whom the K captions of C word pieces of each clip may attend to: (B, 1, K * C, K * C + N) bool.

    A word piece sees the valid ones of its own caption up to itself, and the valid video tokens.
    """
    batch, captions, length = caption_valid.shape
    device = caption_valid.device
    same = torch.eye(captions, dtype=torch.bool, device=device)[:, None, :, None]
    earlier = torch.ones(length, length, dtype=torch.bool, device=device).tril()[None, :, None, :]
    size = captions * length
    within = (same & earlier).view(size, size) & caption_valid.view(batch, 1, size)
    if video_valid is None:
        video_valid = torch.ones(batch, num_video, dtype=torch.bool, device=device)
    return torch.cat([within, video_valid[:, None].expand(-1, size, -1)], 2)[:, None]
