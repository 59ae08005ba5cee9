"""What is watched while a run trains: numbers, pace, power."""
