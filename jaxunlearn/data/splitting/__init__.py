"""Who trains on what: splits, forget sets, the published ones included."""
