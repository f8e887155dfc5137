"""Policies that are served elsewhere, and the messages between a server and its client."""

from robopol.policies.remote.policy import RemoteConfig, RemoteOptions, RemotePolicy, connect

__all__ = ["RemoteConfig", "RemoteOptions", "RemotePolicy", "connect"]
