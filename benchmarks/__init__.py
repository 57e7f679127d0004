"""What Head AI claims about speed, measured side by side: `make bench`."""
