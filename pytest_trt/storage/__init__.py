"""Storage: files written whole or not at all, the store of engines, and what a case names as ``module:attribute``."""

__all__ = ["atomic_write", "engine_store", "entry_point"]
