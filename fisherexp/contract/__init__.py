"""What every method owes its users, and each of its options."""
