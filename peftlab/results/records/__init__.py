"""What a record says, one kind a file, and the folders where records are kept."""
