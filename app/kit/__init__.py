"""Building blocks of the page: components, texts, cards, errors."""
