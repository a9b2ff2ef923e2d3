"""Records of finished runs, and the tables and plots that are made of them."""
