"""Where trials run: in process, or on Ray."""
