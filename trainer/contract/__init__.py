"""What the engine and a user interface agree on: settings, events, run folders. Imports no torch."""
