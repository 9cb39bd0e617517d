"""The command line: commands only; each calls the library function that a notebook would call. No torch at import."""

from bench.cli.audit import audit
from bench.cli.board import board
from bench.cli.check import check
from bench.cli.compare import compare
from bench.cli.data import data
from bench.cli.export import export
from bench.cli.listing import list_group
from bench.cli.push import push
from bench.cli.report import report
from bench.cli.root import main
from bench.cli.run import run
from bench.cli.score import score
from bench.cli.status import status
from bench.cli.table import table
from bench.cli.train import train
from bench.cli.verify import verify

__all__ = ["main"]

SHOWING = (status, list_group, table, compare, check, report, export)
for command in (run, score, data, verify, audit, push, board, train, *SHOWING):
    main.add_command(command)
