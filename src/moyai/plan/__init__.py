"""Pure planners: desired + observed → steps. No input, no output, no clock."""
