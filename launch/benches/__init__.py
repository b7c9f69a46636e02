"""Benches: one module each with `run(quick) -> rows`; `launch/bench.py` lists, runs and prints them."""
