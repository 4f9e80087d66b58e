"""ALBERT (Lan et al. 2020), and BERT as its special case: model, heads, tokenizers, captions, files."""
