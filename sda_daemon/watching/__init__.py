"""Watching folders: hints that something may have changed, for whoever looks then."""
