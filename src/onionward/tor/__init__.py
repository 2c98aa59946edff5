"""The tor process, its account and its control port."""
