"""The configuration of a scale: typed, validated, read from config/<scale>.yaml; every error is one line."""
