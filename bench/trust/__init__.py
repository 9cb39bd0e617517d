"""What is read is not trusted: the one policy that every loader and writer goes through.

`code` refuses checkpoints that ask for code of their own to be run; `places` keeps names that are read inside their
folder, and follows no link inside a run; `text` makes what is shown harmless for its place.
"""
