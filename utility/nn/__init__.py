"""Building blocks of networks that all models share: the transformer encoder, pooling, padding.

What belongs to one model stands with that model.
"""
