"""Word-level speech editing: an instruction, the words and their places, new words in the same voice, one splice."""
