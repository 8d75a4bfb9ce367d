"""omnifleet's own endpoints: jobs sent, looked at, followed, heard and cancelled over HTTP."""
