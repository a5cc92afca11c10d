"""``python -m paretoprune`` is the same as ``paretoprune``."""

from paretoprune._rooms import claim_rooms


def main() -> None:
    """Run the command line with the arguments of the process; ends the process with an exit code."""
    claim_rooms()
    from search.commands.cli import main as run

    run()


if __name__ == "__main__":
    main()
