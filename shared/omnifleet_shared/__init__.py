"""The contract between omnifleet's producers and workers: records, errors, Redis keys, settings, storage. No torch."""
