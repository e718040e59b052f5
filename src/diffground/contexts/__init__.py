"""Prompts longer than the template: contexts from a bank or a language model, or whole prompts from a file."""
