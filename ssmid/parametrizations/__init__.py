"""What trained layers store, and the linear systems that it means."""
