"""What is read is not trusted: the one policy that every loader and writer goes through.

`code` refuses checkpoints that ask for code of their own to be run; `text` makes what is shown harmless for its place.
"""
