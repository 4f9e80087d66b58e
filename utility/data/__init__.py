"""Corpora of any kind: finding media files, reading tables, choosing what is held out.

What knows of samples belongs in `audio`, of frames in `video`.
"""
