"""What moyai needs from any IaaS, as small protocols; adapters in folders of their own."""
