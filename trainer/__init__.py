"""Atelier's training engine. `trainer.contract` is the torch-free part that a user interface may import."""
