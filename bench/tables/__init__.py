"""Tables: which numbers stand where, and in which style."""
