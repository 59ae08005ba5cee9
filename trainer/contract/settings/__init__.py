"""Every setting, declared once: type, range, unit and help text."""
