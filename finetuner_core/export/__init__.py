"""A whole model in a form that computes without Finetuner and without torch."""
