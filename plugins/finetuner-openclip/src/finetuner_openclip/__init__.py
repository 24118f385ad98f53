"""A plugin for Finetuner."""
