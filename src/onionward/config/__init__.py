"""The configuration: frozen values, and how they are read from TOML."""

from onionward.config.parse import load, parse
from onionward.config.values import DEFAULT_ACCOUNT, DEFAULT_PATH, Config, Source

__all__ = ["DEFAULT_ACCOUNT", "DEFAULT_PATH", "Config", "Source", "load", "parse"]
