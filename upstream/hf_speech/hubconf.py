"""Hub entry of hf_speech."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .expert import HuggingFaceSpeech


def hf_speech(ckpt: Any = None, **options: Any) -> "HuggingFaceSpeech":
    """Any speech encoder of Hugging Face: wav2vec 2.0, HuBERT, WavLM, data2vec, w2v-BERT 2.0, Whisper's encoder.

    Arguments as `load` in `expert.py` documents them.
    """
    from .expert import load

    return load(ckpt, **options)
