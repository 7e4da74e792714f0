"""Conversion: deciding what to convert, doing it in worker processes, publishing the result."""
