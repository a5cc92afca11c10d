"""``python -m search`` is the same as ``paretoprune``."""

from search.commands.cli import main

if __name__ == "__main__":
    main()
