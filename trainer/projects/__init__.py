"""Projects: what a person has entered (images, preset, settings, name), on disk from the first keystroke."""
