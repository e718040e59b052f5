"""What the grounding module is measured against."""
