"""The room Start: projects, which images, for which model, to learn what."""
