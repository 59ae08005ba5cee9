"""Model families behind one small protocol; see `base.py`."""
