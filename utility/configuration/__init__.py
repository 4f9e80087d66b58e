"""Configurations: YAML text, schemas, checks of values, and the options of a model.

A new kind of setting is checked here; the settings themselves stand with what they configure.
"""
