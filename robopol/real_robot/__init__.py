"""A policy on an arm: the servo loop, its filter, drivers of arms and emulators of their wires.

What runs in the servo process imports no torch, nor any room that does: `robopol.errors`, `config`, `registry` and
`files` only.
"""
