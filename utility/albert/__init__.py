"""ALBERT (and BERT): configuration, models, tokenizer, captioning and generation, in Hugging Face's formats.

Its public names can be imported from here.
"""
