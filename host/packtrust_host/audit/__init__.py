"""The host's audit log: entries, Merkle tree, signed checkpoints, and what nodes have written (docs/audit.md)."""
