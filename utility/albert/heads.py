"""ALBERT with its heads: pretraining, classification of texts, and answers to questions.

With model_type "bert" they are BERT's heads of these names; in its pretraining, "sentence order" is the next-sentence
head, and 1 stands for a random second sentence instead of a swapped one.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mynah.utility.albert.config import AlbertConfig
from mynah.utility.albert.huggingface import PretrainedFolder
from mynah.utility.albert.model import AlbertModel, MaskedLanguageHead, initialize_albert

IGNORED = -100
"""The label of a position that does not count."""


@dataclass(frozen=True)
class PreTrainingOutput:
    loss: Tensor | None
    """Sum of the losses whose labels were given; None without labels."""
    prediction_logits: Tensor
    """(B, N, vocab_size)."""
    sop_logits: Tensor
    """(B, 2)."""


class AlbertForPreTraining(PretrainedFolder, nn.Module):
    """Masked language model and sentence order prediction (Lan et al. 2020, sec. 3.1)."""

    def __init__(self, config: AlbertConfig):
        super().__init__()
        self.config = config
        self.albert = AlbertModel(config)
        self.predictions = MaskedLanguageHead(config, self.albert.embeddings.word_embeddings)
        self.dropout = nn.Dropout(config.classifier_dropout_prob if config.model_type == "albert" else 0.0)
        self.sentence_order = nn.Linear(config.hidden_size, 2)
        initialize_albert(self.sentence_order, config.initializer_range)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        sentence_order_label: Tensor | None = None,
    ) -> PreTrainingOutput:
        """input_ids, attention_mask, token_type_ids: as AlbertModel takes them. labels: (B, N) int64, the word piece
        that belongs there, -100 where none was masked; sentence_order_label: (B,) int64, 1 for swapped segments.
        """
        output = self.albert(input_ids, attention_mask, token_type_ids)
        scores = self.predictions(output.last_hidden_state)
        order = self.sentence_order(self.dropout(output.pooler_output))
        losses = []
        if labels is not None:
            losses.append(mean_cross_entropy(scores.flatten(0, 1), labels.flatten()))
        if sentence_order_label is not None:
            losses.append(F.cross_entropy(order, sentence_order_label))
        return PreTrainingOutput(sum(losses) if losses else None, scores, order)


def mean_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """logits: (M, classes); labels: (M,) int64, IGNORED where none counts. 0, and not NaN, where none does at all."""
    total = F.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum")
    return total / (labels != IGNORED).sum().clamp(min=1)


@dataclass(frozen=True)
class ClassificationOutput:
    loss: Tensor | None
    """None without labels."""
    logits: Tensor
    """(B, num_labels)."""


class AlbertForSequenceClassification(PretrainedFolder, nn.Module):
    """A text, or a pair of them -> one of config.num_labels classes, several of them, or numbers."""

    def __init__(self, config: AlbertConfig):
        super().__init__()
        self.config = config
        self.albert = AlbertModel(config)
        self.dropout = nn.Dropout(config.classifier_dropout_prob)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        initialize_albert(self.classifier, config.initializer_range)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> ClassificationOutput:
        """labels: (B,) int64, the class, by cross entropy; (B, num_labels) float, each in [0, 1] and independent of
        the others, by binary cross entropy; and where num_labels is 1, (B,) numbers, by squared error.
        """
        logits = self.classifier(self.dropout(self.albert(input_ids, attention_mask, token_type_ids).pooler_output))
        return ClassificationOutput(None if labels is None else classification_loss(logits, labels), logits)


def classification_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """logits: (B, num_labels); labels as AlbertForSequenceClassification takes them."""
    if logits.shape[-1] == 1:
        return F.mse_loss(logits.flatten(), labels.flatten().to(logits.dtype))
    if labels.is_floating_point():
        return F.binary_cross_entropy_with_logits(logits, labels)
    return F.cross_entropy(logits, labels)


@dataclass(frozen=True)
class AnswerOutput:
    loss: Tensor | None
    """None without positions."""
    start_logits: Tensor
    """(B, N), of each position as the answer's first."""
    end_logits: Tensor
    """(B, N), of each position as the answer's last."""


class AlbertForQuestionAnswering(PretrainedFolder, nn.Module):
    """A question and a text that holds the answer -> where it starts and ends."""

    def __init__(self, config: AlbertConfig):
        super().__init__()
        self.config = config
        self.albert = AlbertModel(config, with_pooler=False)
        self.qa_outputs = nn.Linear(config.hidden_size, 2)
        initialize_albert(self.qa_outputs, config.initializer_range)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
    ) -> AnswerOutput:
        """start_positions, end_positions: (B,) int64; one outside the text, as of an answer that was cut off, does
        not count.
        """
        states = self.albert(input_ids, attention_mask, token_type_ids).last_hidden_state
        start, end = self.qa_outputs(states).unbind(-1)
        if start_positions is None or end_positions is None:
            return AnswerOutput(None, start, end)
        loss = (position_loss(start, start_positions) + position_loss(end, end_positions)) / 2
        return AnswerOutput(loss, start, end)


def position_loss(logits: Tensor, positions: Tensor) -> Tensor:
    """Cross entropy of (B, N) logits over positions, (B,), of those that are in 0 .. N - 1."""
    inside = (positions >= 0) & (positions < logits.shape[1])
    return mean_cross_entropy(logits, torch.where(inside, positions, IGNORED))
