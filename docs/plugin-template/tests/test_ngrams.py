"""What this backbone is for."""

import finetuner


def test_a_misspelt_word_stays_near_its_own() -> None:
    model = finetuner.build_model("acme/ngrams", pretrained=False)
    right, misspelt, other = model.encode(["calendar", "calender", "elephant"])
    assert right @ misspelt > 0.3 > abs(right @ other)
