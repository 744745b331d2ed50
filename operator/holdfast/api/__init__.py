"""The objects of `serving.holdfast.dev/v1alpha1` as types: what users write and what status they read.

Everything else in the project, images included, may import this package; it imports nothing of the project.
"""
