"""Numbers of many models: where their variance comes from, which method is closest to retraining."""
