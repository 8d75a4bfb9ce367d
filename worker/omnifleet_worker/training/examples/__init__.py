"""What is learned from: lines and files of data sets, and what they are encoded to."""
