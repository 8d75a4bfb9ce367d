"""Who may use the gateway: API keys with their tenants, rates and quotas."""
