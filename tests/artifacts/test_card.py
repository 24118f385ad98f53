"""The card: metadata that is YAML, numbers with their intervals, and nothing of the data itself."""

from __future__ import annotations

import json
from pathlib import Path

from finetuner_core.artifacts.card import FOLDER, Subject, read_papers, render_card, write_papers
from finetuner_core.values import BackboneInfo

INFO = BackboneInfo(
    "acme/letters",
    "text-to-text",
    64,
    "CNN",
    "Letters",
    licence="MIT",
    source="https://huggingface.co/acme/letters",
    namespace="acme",
)
SUBJECT = Subject(INFO, 16, [(None, INFO, "mean", True, None)])
RECORD = {
    "data": [{"train": "64 labelled texts in 4 classes", "loss": {"name": "infonce"}}],
    "evaluation": [
        {
            "name": "held-out",
            "data": "16 labelled texts in 4 classes",
            "before": {"map": 0.5},
            "after": {"map": 0.71234},
            "intervals": {"before": {"map": [0.4, 0.6]}, "after": {"map": [0.65, 0.77]}},
        }
    ],
}


def test_what_it_says() -> None:
    text = render_card(SUBJECT, RECORD)
    assert "# acme/letters, fine-tuned" in text
    assert "[acme/letters](https://huggingface.co/acme/letters) (CNN, licence of its weights: MIT)" in text
    assert "pooling mean, a projection to 16" in text
    assert "0.500 (0.400 to 0.600)" in text
    assert "0.712 (0.650 to 0.770)" in text
    assert "64 labelled texts in 4 classes, loss infonce" in text
    assert f'finetuner.load("{FOLDER}")' in text


def test_its_metadata() -> None:
    lines = render_card(SUBJECT, RECORD).split("---")[1].splitlines()
    assert 'library_name: "finetuner"' in lines
    assert 'pipeline_tag: "sentence-similarity"' in lines
    assert lines[lines.index("base_model:") + 1] == '- "acme/letters"'
    assert any(line.strip() == "value: 0.7123" for line in lines)


def test_where_nothing_was_trained() -> None:
    text = render_card(SUBJECT, {})
    assert "fine-tuned" not in text
    assert "What it gained" not in text


def test_the_folder_of_a_person_is_not_told() -> None:
    info = BackboneInfo("/home/jane/secret/bert", "text-to-text", 8, "CNN", "", namespace="acme")
    text = render_card(Subject(info, 8, [(None, info, "mean", False, None)]), {})
    assert "jane" not in text
    assert "bert" in text


def test_a_card_goes_with_its_weights(tmp_path: Path) -> None:
    (tmp_path / "training.json").write_text(json.dumps(RECORD))
    write_papers(tmp_path, {}, SUBJECT)
    (tmp_path / "README.md").write_text("by hand")
    papers = read_papers(tmp_path)
    (tmp_path / "again").mkdir()
    write_papers(tmp_path / "again", papers, SUBJECT)
    assert read_papers(tmp_path / "again") == papers
    # A new training writes a new one.
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "training.json").write_text(json.dumps(RECORD))
    write_papers(tmp_path / "new", papers, SUBJECT)
    assert "What it gained" in (tmp_path / "new" / "README.md").read_text()
