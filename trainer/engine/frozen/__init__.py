"""The frozen base model's weights and activations in less memory."""
