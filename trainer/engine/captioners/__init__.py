"""The captioners behind one interface: a function from a picture to its caption. Each loads its library when opened."""
