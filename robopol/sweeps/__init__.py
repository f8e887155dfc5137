"""Many runs as one: every combination of settings and seeds, done wherever there is room, and put together."""
