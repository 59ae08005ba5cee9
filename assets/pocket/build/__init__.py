"""The recipe that makes the built-in model: fetch, render, vae, unet, export, check."""
