"""The safe reader of torch's file format, without torch: archives, pickles, names, plain values. Runs nothing."""
