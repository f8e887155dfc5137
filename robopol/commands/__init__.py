"""One file a verb of the command line: words in, one call, an exit status out."""
