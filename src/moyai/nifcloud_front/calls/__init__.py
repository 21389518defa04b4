"""What each call checks, changes and answers, on the front's own rows alone. No call here asks the cloud below."""
