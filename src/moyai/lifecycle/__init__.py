"""From spec to running cluster and back to nothing: up, status, scale, down."""
