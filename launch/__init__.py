"""Entry points: `python -m launch.<verb> --config=configs/<experiment>.py`."""
