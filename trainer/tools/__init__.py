"""Programs that change model files, each started as a process of its own. They may import torch."""
