"""What every other part stands on: time, errors, names, progress. Standard library and PyYAML (``yamltext``) only."""
