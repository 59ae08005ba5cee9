"""The room Settings: the four that matter, all others, and presets of one's own."""
