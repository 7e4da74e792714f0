"""What outlives the process: what was done with each checkpoint, who holds the folders, what has gone missing."""
