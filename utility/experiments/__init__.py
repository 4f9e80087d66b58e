"""Runs on the disk: an experiment's folder, checkpoints, and files of weights.

A new kind of checkpoint goes here.
"""
