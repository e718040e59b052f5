"""The grounding module: features of the diffusion model and words in, one mask per word out."""
