"""Clips: video files, which frames are taken of them, their cache, and writing them.

A new container, sampling rule or frame size goes here.
"""
