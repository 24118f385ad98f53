"""What a saved model's folder is, and how it is written whole or not at all."""
