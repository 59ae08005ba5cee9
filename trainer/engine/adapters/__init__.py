"""LoRA layers: attached, computed, and written as a file."""
