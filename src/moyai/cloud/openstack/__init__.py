"""The OpenStack adapter. The only place that imports openstacksdk."""
