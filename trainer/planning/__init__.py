"""What a training will take, worked out before it starts: memory, disk, time, previews."""
