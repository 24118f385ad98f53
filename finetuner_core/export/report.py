"""What an export says when it is done."""

from __future__ import annotations

from finetuner_core.export.export import ExportResult
from finetuner_core.export.int8 import GOOD_COSINE


def render_export(result: ExportResult) -> str:
    """A line for each graph: how much its vectors differ from the model's own."""
    lines = []
    for part in result.parts:
        if not part.int8:
            said = f"differs from the model's vectors by at most {part.difference:.1e}"
        else:
            said = f"in int8, mean cosine to the model's vectors {part.cosine:.4f}, least {part.least_cosine:.4f}"
            if part.cosine < GOOD_COSINE:
                said += "; measure what that costs you: finetuner evaluate has the model's own numbers"
        lines.append(f"{part.file}: {said} (on {part.items} items)")
    return "\n".join([*lines, f"Saved in {result.path}"])
