"""What `make fuzz` is made of: seeds, mutations, hostile pickles, and the process that judges a file."""
