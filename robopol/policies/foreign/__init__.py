"""Policies that other libraries trained, in files that run code when they are loaded."""
