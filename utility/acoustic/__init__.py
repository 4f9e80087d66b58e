"""Masked acoustic models: configuration, dataset, masking, model, pretraining, figures.

What Audio ALBERT and Mockingjay share.
"""
