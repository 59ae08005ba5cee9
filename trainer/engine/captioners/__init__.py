"""The captioners behind one interface: a function from an image to its caption. Each loads its library when opened."""
