"""The cluster, declared: validated models, defaults, and errors that name the field."""
