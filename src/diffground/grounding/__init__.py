"""The grounding module: features of the diffusion model and words in, one mask a word out."""
