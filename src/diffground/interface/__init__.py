"""What the command line and the Studio share: words and prompts checked, the models of a clone, results as files."""
