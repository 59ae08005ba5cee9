"""The server around the page: access, limits, files."""
