"""What goes wrong in minutes rather than seconds: kills, two commands at once, a cloud that is gone, a leader that changes."""
