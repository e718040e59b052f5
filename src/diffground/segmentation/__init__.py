"""Segmenters behind one interface, and their training on real or synthetic images."""
