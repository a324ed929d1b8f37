"""Personal data in texts: found, replaced by placeholders, put back."""
