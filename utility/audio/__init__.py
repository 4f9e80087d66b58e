"""Speech: audio files, corpora of utterances and their lengths, and the front ends.

A new file format, corpus layout or front end goes here.
"""
