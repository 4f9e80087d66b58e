"""Corpora that Mynah makes itself: speech with eSpeak NG, clips of moving shapes.

A new demo corpus goes here, in the layout of a real one.
"""
