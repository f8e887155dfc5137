"""Scripted experts: one file a task; `robopol.envs.make_expert` makes them."""
