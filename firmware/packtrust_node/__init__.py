"""The nodes: pack controller and battery module, thin around the core `packtrust`."""
