"""Where the command line writes results to: the terminal, files, standard output."""
