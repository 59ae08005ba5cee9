"""A run as a folder and as a process: created, started, queued, watched and handed over."""
