"""`python -m diffground` is `diffground`."""

from diffground.cli import main

if __name__ == "__main__":
    main()
