"""The baselines that the grounding module is compared with."""
