"""The contract of methods: what a method is, what it is given, what it gives back."""
