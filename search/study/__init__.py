"""A study: its configuration, its space, who is asked and told when."""
