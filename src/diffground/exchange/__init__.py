"""Synthetic data in the formats of other tools: `diffground export`."""
