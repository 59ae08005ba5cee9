"""Base models and LoRA files on disk and on the Hugging Face hub, read from their headers alone."""
