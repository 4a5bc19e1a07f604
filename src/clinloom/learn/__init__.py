"""What is learned from training rows: preparation, recalibration, and how models are fitted."""
