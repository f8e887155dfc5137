"""Training: one loop, its data, and the folder that it leaves."""
