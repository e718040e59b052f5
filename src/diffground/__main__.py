"""`python -m diffground` is `diffground`."""

from diffground.cli.main import main

if __name__ == "__main__":
    main()
