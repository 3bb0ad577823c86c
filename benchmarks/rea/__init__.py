"""The REA benchmark: Reasoning about Environments and Actions."""
