"""The training itself. With `trainer.tools`, the only place that imports torch."""
