"""The node image and OCI images, made without a registry, byte for byte reproducible."""
