"""Models that workers run, a folder for each architecture; what all of them share lies beside the folders."""
