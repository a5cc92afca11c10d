"""One picture per method, each of a real trial on the built-in digits; see ``examples/method_pictures.py``."""
