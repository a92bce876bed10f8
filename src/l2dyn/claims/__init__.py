"""How each claim of the paper is judged, from summaries, theory curves and runs alone."""
