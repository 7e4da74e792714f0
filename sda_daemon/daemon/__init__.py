"""The daemon: a process that lives one session after another.

Empty on purpose: commands that only look at a lock or send a signal need not load what a session does.
"""
