"""What the book measures besides its notebooks: verdicts on fresh seeds, the authors' pictures, and long runs."""
