"""The host app: key store, node, provisioning, registration, validation, real-time runner."""
