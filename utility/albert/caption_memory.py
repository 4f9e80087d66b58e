"""Key and value cache of caption generation, for the video and the words generated so far.

Captions are masked language modelling from left to right (Lin et al. 2022, sec. 3.4): the model sees
[CLS] w_1 .. w_{t-1} [MASK], and its answer at [MASK] is w_t. Nobody looks at a [MASK] but itself, and the video
looks at no caption, so a step runs w_{t-1} and [MASK] only, and remembers w_{t-1}.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from mynah.utility.albert.captioning import AlbertForImageCaptioning
from mynah.utility.nn.encoder import AttentionFunction, TransformerLayer, combine_masks, fused_attention


class CachedDecoder:
    """Scores of the next word of `num_beams` captions for each of B clips, step by step.

    The captions of a clip are further queries to its one set of keys and values of the video.
    """

    def __init__(
        self,
        model: AlbertForImageCaptioning,
        embedded: Tensor,
        video_valid: Tensor | None,
        num_beams: int,
        max_length: int,
        mask_id: int,
    ):
        """embedded: (B, N, hidden_size), video_valid: (B, N) bool or None: passed through the encoder here.
        max_length: the most words of a caption.
        """
        self.model, self.num_beams, self.mask_id = model, num_beams, mask_id
        self.num_video, self.video_valid = embedded.shape[1], video_valid
        self.memories = [LayerMemory(self.num_video, num_beams, max_length + 1) for _ in self._layers()]
        video_mask = combine_masks(model.video_bias(self.num_video), video_valid)
        x = embedded
        for index, (layer, memory) in enumerate(zip(self._layers(), self.memories, strict=True)):
            needed = index < len(self.memories) - 1  # the last layer's keys and values, but nothing after
            x = layer(x, memory.video_attention(video_mask, needed))

    def step(self, words: Tensor) -> Tensor:
        """words: (B, num_beams, t) int64, [CLS] w_1 .. w_{t-1}, of which all but the last are known from earlier
        steps -> scores of w_t: (B, num_beams, vocab_size).
        """
        position = words.shape[2] - 1
        x = self._embed(words[:, :, -1], position)
        mask = self._step_mask(position)
        for layer, memory in zip(self._layers(), self.memories, strict=True):
            x = layer(x, memory.word_attention(mask, position))
        return self.model.predictions(x[:, self.num_beams :])

    def reorder(self, beams: Tensor) -> None:
        """beams: (B, num_beams) int64: go on with the words of these beams of each clip, in this order."""
        for memory in self.memories:
            memory.reorder(beams)

    def keep(self, clips: Tensor) -> None:
        """clips: (B',) int64: forget all clips but these."""
        self.video_valid = None if self.video_valid is None else self.video_valid[clips]
        for memory in self.memories:
            memory.keep(clips)

    def _layers(self) -> Iterator[TransformerLayer]:
        encoder = self.model.albert.encoder
        return (layer for group in encoder.passes() for layer in group)

    def _embed(self, last_words: Tensor, position: int) -> Tensor:
        """last_words: (B, num_beams) -> (B, 2 * num_beams, hidden_size): at `position`, then [MASK]s after it."""
        ids = torch.cat([last_words, torch.full_like(last_words, self.mask_id)], 1)
        positions = torch.arange(position, position + 2, device=ids.device).repeat_interleave(self.num_beams)
        return self.model.albert.embeddings(ids, position_ids=positions[None])

    def _step_mask(self, position: int) -> Tensor:
        """(1 or B, 1, 2 * num_beams, keys) bool: to the video, and to the same beam up to the same position."""
        device = self.model.predictions.bias.device
        place = torch.arange((position + 2) * self.num_beams, device=device)
        of_position, of_beam = place // self.num_beams, place % self.num_beams
        run = slice(position * self.num_beams, None)
        words = (of_position[run, None] >= of_position) & (of_beam[run, None] == of_beam)
        valid = words.new_ones(1, self.num_video) if self.video_valid is None else self.video_valid
        video = valid[:, None].expand(-1, len(words), -1)
        return torch.cat([video, words.expand(len(video), -1, -1)], 2)[:, None]


class LayerMemory:
    """The keys and values of one layer: N of the video, then of the captions, by position and then by beam.

    They are (B, heads, N + positions * beams, d), in a buffer of full size from the start, so that attention reads
    the first part that is in use as it lies, and a step writes no more than it adds.
    """

    def __init__(self, num_video: int, num_beams: int, num_positions: int):
        self.num_video, self.num_beams = num_video, num_beams
        self.size = num_video + num_positions * num_beams
        self.keys = self.values = torch.empty(0)

    def video_attention(self, mask: Tensor | None, needed: bool) -> AttentionFunction:
        """Attention among video tokens that remembers their keys and values; answers no query unless `needed`."""

        def attend(query: Tensor, key: Tensor, value: Tensor, dropout: float) -> Tensor:
            batch, heads, _, width = key.shape
            self.keys, self.values = (key.new_empty(batch, heads, self.size, width) for _ in range(2))
            self._write(0, key, value)
            return fused_attention(query, key, value, mask, dropout) if needed else query[:, :, :0]

        return attend

    def word_attention(self, mask: Tensor, position: int) -> AttentionFunction:
        """Attention of the words at `position` and of the [MASK]s after it, which are remembered until the next step
        writes words in their place."""

        def attend(query: Tensor, key: Tensor, value: Tensor, dropout: float) -> Tensor:
            end = self._write(self.num_video + position * self.num_beams, key, value)
            return fused_attention(query, self.keys[:, :, :end], self.values[:, :, :end], mask, dropout)

        return attend

    def reorder(self, beams: Tensor) -> None:
        """See CachedDecoder.reorder."""
        for buffer in (self.keys, self.values):
            words = buffer[:, :, self.num_video :].unflatten(2, (-1, self.num_beams))
            index = beams[:, None, None, :, None].expand_as(words)
            words.copy_(words.gather(3, index))

    def keep(self, clips: Tensor) -> None:
        """See CachedDecoder.keep."""
        self.keys, self.values = self.keys[clips], self.values[clips]

    def _write(self, start: int, key: Tensor, value: Tensor) -> int:
        """Remember key and value, (B, heads, M, d), from place `start` on; returns the place after them."""
        end = start + key.shape[2]
        self.keys[:, :, start:end], self.values[:, :, start:end] = key, value
        return end
