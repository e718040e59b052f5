"""The command line: `main` reads it, `actions` performs it."""
