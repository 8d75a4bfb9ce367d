"""The gateway: omnifleet over HTTP, for backends without Python. Needs `omnifleet[gateway]`."""
