"""One reader for each kind of file that may hold what was forgotten; :mod:`graphrec.unlearning.scanner` calls them."""
