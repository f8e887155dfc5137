"""Ways to steer a frozen policy."""
