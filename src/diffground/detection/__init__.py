"""Detectors behind one interface, and the oracle masks made from them."""
