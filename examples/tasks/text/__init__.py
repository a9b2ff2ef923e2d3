"""Text, byte by byte, and a transformer that learns what comes next."""
