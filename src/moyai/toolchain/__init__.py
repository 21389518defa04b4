"""The pinned upstream components: fetched as releases, or built from their Go modules, once."""
