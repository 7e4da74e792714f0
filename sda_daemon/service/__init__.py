"""What makes the daemon a good service of systemd: notifications, the journal, the units.

Everything here is quiet where there is no systemd.
"""
