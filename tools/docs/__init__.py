"""What writes the node table, the help pages, and the pictures of the documentation."""
