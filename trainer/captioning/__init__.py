"""Captions made for you: from names, from metadata, from similar images, or by a model in its own process."""
