"""How fast, beside everybody else: see README.md."""
