"""What saving and loading cost, beside what others take for the same bytes in the same run."""
