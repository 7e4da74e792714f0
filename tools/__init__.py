"""Tools for whoever changes this program: no part of the package that is installed."""
