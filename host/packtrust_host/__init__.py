"""The CPython companion of packtrust: command line, bridge, provisioning, simulator and proofs."""

__version__ = "0.1.0"
