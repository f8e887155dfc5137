"""Devices by which a person leads an arm, one file each."""
