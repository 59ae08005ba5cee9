"""The local web page; it knows the engine only through `trainer.contract`."""
