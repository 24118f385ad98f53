"""Fine-tuning: the settings, the steps, and the job from data to a saved model."""
