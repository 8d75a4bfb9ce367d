"""The contract between omnifleet's producers and workers: records, errors, names, settings, storage. No torch."""
