"""What other programs' snapshots are: microsandbox's artifact directories, its home, and how they come into a store."""
