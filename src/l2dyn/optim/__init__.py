"""What other people's training imports: the schedule AutoL2, and measure_c."""
