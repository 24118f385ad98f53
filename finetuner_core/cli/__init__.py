"""The command `finetuner`. Nothing heavy is imported above a function's body."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from finetuner_core.cli import parameters
from finetuner_core.cli.catalogue import doctor, list_command, show
from finetuner_core.cli.check import check
from finetuner_core.cli.export import export, push
from finetuner_core.cli.fit import fit
from finetuner_core.cli.mine import mine
from finetuner_core.cli.runs import runs
from finetuner_core.cli.use import encode, evaluate
from finetuner_core.errors import FinetunerError, Interrupted
from finetuner_core.values import printable

__all__ = ["cli", "main"]


class _Group(click.Group):
    """Says every error in one or two lines on stderr, and exits with code 2."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> NoReturn:
        try:
            code = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
            sys.stdout.flush()
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            sys.exit(2)
        except click.ClickException as error:
            _fail(error.format_message())
        except Interrupted as stopped:
            click.echo(printable(str(stopped)), err=True)
            sys.exit(stopped.exit_code)
        except FinetunerError as error:
            _fail(str(error))
        except (click.Abort, KeyboardInterrupt):
            click.echo("Stopped.", err=True)
            sys.exit(130)
        except BrokenPipeError:
            # Whoever read our output has enough. What is still buffered goes nowhere, or Python complains at its exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str) -> NoReturn:
    click.echo(f"Error: {printable(message)}", err=True)
    sys.exit(2)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="finetuner-core", prog_name="finetuner")
@parameters.verbose
def cli() -> None:
    """Turns pretrained backbones into embedding models and fine-tunes them for search."""


for command in (list_command, show, check, fit, runs, evaluate, encode, export, push, mine, doctor):
    cli.add_command(command)


def main() -> NoReturn:
    """The console script."""
    cli.main()
