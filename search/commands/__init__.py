"""The commands of ``paretoprune``, by what they are for; everything heavy is imported when a command runs."""
