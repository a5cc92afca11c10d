"""Reports: tables for the terminal, pictures for people, files for other programs."""
