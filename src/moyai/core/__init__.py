"""The base of every other part: time, errors, names, progress. Only ``yamltext`` and ``yamlread`` use a library: PyYAML."""
