"""Who trains on what: splits and forget sets, with the published ones."""

from jaxunlearn.data.splitting import forget, splits

__all__ = ["forget", "splits"]
