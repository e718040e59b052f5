"""The frozen text-to-image model: prompts and seeds in; images, latents, features and attention out."""
