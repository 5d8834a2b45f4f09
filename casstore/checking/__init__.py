"""Looking whether a store is what it should be, and mending what is not."""
