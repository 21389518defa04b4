"""What the front remembers: NIFCLOUD's objects, the work that is under way, who called. SQLite keeps it."""
