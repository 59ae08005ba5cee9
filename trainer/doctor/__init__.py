"""What would harm a training: looked for in a data set before hours go into it."""
