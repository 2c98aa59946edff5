"""pf: what is rendered for it, read and judged by a grammar and an evaluator of the tests' own."""
