"""Pure renderers: a policy in, the text of a tool out."""
