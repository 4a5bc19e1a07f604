"""What readers of images share."""
