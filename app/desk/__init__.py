"""What every room shows of a project: its settings, the plan, and Train."""
