"""An image's way to a training batch: load, bucket, encode once, batch."""
