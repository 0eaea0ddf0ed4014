"""Devices and processes: meshes, sharding rules, multi-process start-up and preemption."""
