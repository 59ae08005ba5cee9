"""A folder of images with captions: found, read, edited and laid out in buckets and views."""
