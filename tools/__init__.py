"""Checks of the code that are our own; `make lint` runs them."""
