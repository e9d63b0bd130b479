"""Reading, composing and checking configurations. Never imports torch: a mistyped option must answer at once."""
