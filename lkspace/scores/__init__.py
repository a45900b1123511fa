"""The numbers that candidates are compared by, one file each."""
