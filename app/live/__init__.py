"""The live panel and the result."""
