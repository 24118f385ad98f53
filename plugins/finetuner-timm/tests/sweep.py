"""Goes over every architecture of timm and writes what holds of it: `python plugins/finetuner-timm/tests/sweep.py`.

One process at a time builds one network after the other; where it dies or hangs, that is written down and the next
architecture gets a new one. What is known already is not done again, so that it can be stopped and started at will.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import os
import resource
import select
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import date
from fnmatch import fnmatch
from importlib.metadata import version
from pathlib import Path
from typing import Any

RECIPES = ("same", "another vector", "another width", "broken")
COLUMNS = ("name", "family", "outcome", "reason", "width", "parameters", "poolings", "size", "recipe")
TOO_LARGE = "Larger than the limit of the sweep"  # as timm_checks says it, which imports torch
_ROOT = Path(__file__).parents[3]


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=_ROOT / ".sweep", help="where findings are kept (default .sweep)")
    parser.add_argument("--docs", type=Path, default=_ROOT / "docs", help="where the tables are written")
    parser.add_argument("--limit", type=int, default=2_000_000_000, help="parameters of the largest that is built")
    parser.add_argument("--timeout", type=int, default=300, help="seconds for one architecture")
    parser.add_argument("--again", nargs="*", metavar="NAME", help="do these again; without names, all that are wrong")
    parser.add_argument("--only", nargs="+", metavar="PATTERN", default=["*"], help="such as 'vit_*'")
    parser.add_argument("--from-docs", action="store_true", help="what sweep.csv there says is known as well")
    parser.add_argument("--table", action="store_true", help="write the tables of what is known, and do nothing else")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        _work(arguments.limit)
        return
    arguments.work.mkdir(exist_ok=True)
    log = arguments.work / "findings.jsonl"
    if arguments.from_docs and not log.is_file():
        log.write_text("".join(json.dumps(finding) + "\n" for finding in _read_table(arguments.docs)), "utf-8")
    if not arguments.table:
        _sweep(log, arguments)
    _write_tables(list(_known(log).values()), arguments.docs)


def _read_table(docs: Path) -> list[dict[str, Any]]:
    """The findings that `sweep.csv` holds."""
    with (docs / "sweep.csv").open(encoding="utf-8", newline="") as file:
        return [
            {
                **row,
                "poolings": row["poolings"].split(),
                "parameters": int(row["parameters"]) if row["parameters"] else None,
            }
            for row in csv.DictReader(file)
        ]


def _known(log: Path) -> dict[str, dict[str, Any]]:
    """The last finding of each architecture."""
    lines = log.read_text("utf-8").splitlines() if log.is_file() else []
    return {finding["name"]: finding for finding in map(json.loads, lines)}


def _sweep(log: Path, arguments: argparse.Namespace) -> None:
    from finetuner_timm.library import timm

    known = _known(log)
    # The first of each family, then the second of each: what is wrong with a family shows early.
    turn: Counter[str] = Counter()
    turns: dict[str, int] = {}
    for name in timm.list_models():
        family = timm.models.model_entrypoint(name).__module__
        turns[name] = turn[family]
        turn[family] += 1
    names = [name for name in sorted(turns, key=lambda name: turns[name]) if _matches(name, arguments.only)]
    again = arguments.again
    if again is not None:
        again = again or [name for name, finding in known.items() if finding["outcome"] == "wrong"]
    todo = [name for name in names if not _is_done(known.get(name), arguments.limit) or name in (again or ())]
    print(f"{len(todo)} of {len(names)} architectures", flush=True)
    with log.open("a", encoding="utf-8") as file:
        for number, finding in enumerate(_findings(todo, arguments), 1):
            file.write(json.dumps(finding) + "\n")
            file.flush()
            print(number, finding["name"], finding["outcome"], finding["reason"], finding["seconds"], "s", flush=True)


def _is_done(finding: dict[str, Any] | None, limit: int) -> bool:
    """Whether nothing is left to do: what was too large for another limit may not be for this one."""
    if finding is None:
        return False
    return not finding["reason"].startswith(TOO_LARGE) or finding["parameters"] > limit


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def _findings(names: Iterable[str], arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    worker: subprocess.Popen[str] | None = None
    for name in names:
        finding = None
        while finding is None:
            if worker is None or worker.poll() is not None:
                worker = _start(arguments.limit)
            assert worker.stdin is not None
            assert worker.stdout is not None
            with contextlib.suppress(BrokenPipeError):
                worker.stdin.write(name + "\n")
                worker.stdin.flush()
            ready, _, _ = select.select([worker.stdout], [], [], arguments.timeout)
            if line := worker.stdout.readline() if ready else "":
                finding = json.loads(line)
                continue
            worker.kill()
            code, worker = worker.wait(), None
            if ready and code == 0:
                continue  # it had grown, and was ending when it was asked
            reason = f"its process died ({code})" if ready else f"not done after {arguments.timeout} s"
            finding = {"name": name, "family": "", "outcome": "wrong", "reason": reason, "seconds": 0}
        yield finding
    if worker is not None:
        assert worker.stdin is not None
        worker.stdin.close()
        worker.wait()


def _start(limit: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, __file__, "--worker", "--limit", str(limit)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    )


def _work(limit: int) -> None:
    """Checks the architectures that are named on stdin, and ends where it has grown."""
    import torch
    from timm_checks import check

    torch.set_num_threads(1)
    answers, sys.stdout = sys.stdout, sys.stderr  # where libraries may print
    for line in sys.stdin:
        answers.write(json.dumps(check(line.strip(), limit=limit).as_json()) + "\n")
        answers.flush()
        if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > 4_000_000:
            return


def _write_tables(findings: list[dict[str, Any]], docs: Path) -> None:
    """`sweep.md`, the counts and a row for each family, and `sweep.csv`, a row for each architecture."""
    docs.mkdir(parents=True, exist_ok=True)
    findings.sort(key=lambda finding: (finding["family"], finding["name"]))
    with (docs / "sweep.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for finding in findings:
            writer.writerow({**finding, "poolings": " ".join(finding.get("poolings", ()))})
    (docs / "sweep.md").write_text(_page(findings), "utf-8")


def _page(findings: list[dict[str, Any]]) -> str:
    from finetuner_timm.library import timm

    outcomes = Counter(finding["outcome"] for finding in findings)
    outcomes["not looked at yet"] = len(timm.list_models()) - len(findings)
    recipes = Counter(finding["recipe"] for finding in findings if finding.get("recipe"))
    reasons = Counter(_kind(finding) for finding in findings if finding["outcome"] == "refused")
    lines = [
        "# Every architecture of timm",
        "",
        f"{date.today():%d %B %Y}, timm {version('timm')}, torch {version('torch')}. "
        "Written by `nox -s sweep`; each architecture is in [sweep.csv](sweep.csv).",
        "",
        "Each is built with random weights and compared with a network that timm itself has made of the same weights:",
        "the width is the row's, `native` is timm's own embedding (cosine at least 0.99999), every parameter left gets",
        "a gradient through each path that a pooling takes, a saved folder opens in timm and here and gives the same",
        "vectors (up to 30 million parameters), tokens are those that timm gives unpooled, in the order of the image.",
        "Beside it the usual recipe: unpooled features, read as channels-first, and their mean.",
        "",
        "| | architectures |",
        "|---|---|",
        *(f"| {outcome} | {outcomes[outcome]} |" for outcome in ("right", "refused", "wrong", "not looked at yet")),
        *(f"| refused: {reason} | {count} |" for reason, count in reasons.most_common()),
        *(f"| the recipe: {recipe} | {recipes[recipe]} of {recipes.total()} |" for recipe in RECIPES),
        "",
        "| family | right | refused | wrong | tokens | class token | the recipe differs |",
        "|---|---|---|---|---|---|---|",
    ]
    for family in dict.fromkeys(finding["family"] for finding in findings):
        members = [finding for finding in findings if finding["family"] == family]
        of = Counter(finding["outcome"] for finding in members)
        tokens = sum("mean" in finding.get("poolings", ()) for finding in members)
        classes = sum("cls" in finding.get("poolings", ()) for finding in members)
        tried = [finding["recipe"] for finding in members if finding.get("recipe")]
        differs = f"{sum(recipe != 'same' for recipe in tried)} of {len(tried)}" if tried else ""
        lines.append(
            f"| {family} | {of['right']} | {of['refused']} | {of['wrong']} | {tokens} | {classes} | {differs} |"
        )
    return "\n".join(lines) + "\n"


def _kind(finding: dict[str, Any]) -> str:
    return "larger than the limit of the sweep" if finding["reason"].startswith(TOO_LARGE) else "no embedding to give"


if __name__ == "__main__":
    main()
