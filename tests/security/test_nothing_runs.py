"""Nothing in the code can run what a file brings: a search through all of it for every way to do so."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLACES = ("finetuner_core", "plugins/*/src", "benchmarks", "docs", "*.py", "README.md")

# Each of these runs what it is given, or can. `model.eval()` is torch's, and `re.compile` compiles a pattern.
WAYS = {
    "pickle": r"\b(import|from) (pickle|cloudpickle|dill|joblib|shelve)\b|\b(c?[pP]ickle|dill|joblib)\.loads?\b",
    "marshal": r"\bmarshal\.loads?\b",
    "torch.load": r"\btorch\.load\((?!.*weights_only=True)|weights_only=False|\btorch\.(jit|hub)\.load\b",
    "numpy": r"allow_pickle=(?!False)|np\.load\((?=.*allow_pickle=T)",
    "eval": r"(?<![.\w])(?<!def )(eval|exec|compile|__import__)\((?!\))",
    "remote code": r"trust_remote_code=(?!False)",
    "yaml": r"\byaml\.(?!safe_load|safe_dump|dump)\w*load",
    "shell": r"shell=True|\bos\.(system|popen)\(",
    "archives": r"\.extract(all)?\((?!.*filter=)|\bunpack_archive\(",
    "xml": r"\bxml\.(etree|sax|dom)\b",
}

# The conformance kit asks whether a plugin's preprocess can go to another process. It reads back, in the same process
# and on the next line, bytes that it has just made itself: nothing of a file or of the network is among them.
ALLOWED = {
    "finetuner_core/testing/feeding.py": (
        "import pickle",
        "copy = pickle.loads(pickle.dumps(preprocess))",
        "prepared = pickle.loads(pickle.dumps(copy.prepare(some)))",
    ),
    # The name of the error that torch raises where a file is refused.
    "plugins/finetuner-openclip/src/finetuner_openclip/backbone.py": ("from pickle import UnpicklingError",),
    "plugins/finetuner-hf/src/finetuner_hf/hub.py": ("from pickle import UnpicklingError",),
}


def sources() -> Iterator[Path]:
    for place in PLACES:
        for found in sorted(ROOT.glob(place)):
            yield from sorted(found.rglob("*.py")) + sorted(found.rglob("*.md")) if found.is_dir() else [found]


def findings(text: str, way: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if re.search(WAYS[way], line)]


@pytest.mark.parametrize("way", WAYS)
def test_no_line_can_run_what_it_reads(way: str) -> None:
    files = list(sources())
    assert len(files) > 200
    found = {
        f"{name}: {line}"
        for file in files
        for line in findings(file.read_text("utf-8"), way)
        if line not in ALLOWED.get(name := file.relative_to(ROOT).as_posix(), ())
    }
    assert found == set()


def test_what_is_allowed_is_still_there() -> None:
    for name, lines in ALLOWED.items():
        assert set(lines) <= {line.strip() for line in (ROOT / name).read_text("utf-8").splitlines()}, name


@pytest.mark.parametrize(
    ("way", "line"),
    [
        ("pickle", "import pickle"),
        ("pickle", "    return pickle.loads(data)"),
        ("pickle", "from joblib import load"),
        ("marshal", "marshal.loads(data)"),
        ("torch.load", "torch.load(path)"),
        ("torch.load", "torch.load(path, weights_only=False)"),
        ("numpy", "np.load(path, allow_pickle=True)"),
        ("eval", "value = eval(text)"),
        ("eval", "exec(text)"),
        ("remote code", "AutoModel.from_pretrained(name, trust_remote_code=True)"),
        ("yaml", "yaml.load(text)"),
        ("yaml", "yaml.unsafe_load(text)"),
        ("shell", "subprocess.run(text, shell=True)"),
        ("shell", "os.system(text)"),
        ("archives", "tar.extractall(folder)"),
    ],
)
def test_the_search_finds(way: str, line: str) -> None:
    assert findings(line, way) == [line.strip()]


@pytest.mark.parametrize(
    "line", ["model.eval()", "re.compile(text)", "torch.load(path, weights_only=True)", "literal_eval(x)"]
)
def test_the_search_leaves(line: str) -> None:
    assert [way for way in WAYS if findings(line, way)] == []
