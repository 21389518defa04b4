"""What keeps reconcilers running: manager, health, metrics."""
