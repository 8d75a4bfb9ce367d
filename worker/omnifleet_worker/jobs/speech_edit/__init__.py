"""Word-level speech editing: an instruction, the words and their times, new words in the same voice, one splice."""
